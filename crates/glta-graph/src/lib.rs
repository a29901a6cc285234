//! LightGCN on a CPU: interaction graph, propagation and BPR training.
//!
//! ```
//! use glta_data::Interactions;
//! use glta_graph::{LightGcn, LightGcnConfig, fold_in_user};
//! use glta_metrics::top_k;
//!
//! // Two groups of users with different tastes.
//! let pairs = (0..20u32).flat_map(|u| (0..4u32).map(move |k| (u, 5 * (u % 2) + (u + k) % 5)));
//! let train = Interactions::from_pairs(20, 10, pairs)?;
//!
//! let config = LightGcnConfig {
//!     dim: 16,
//!     learning_rate: 0.02,
//!     epochs: 100,
//!     ..LightGcnConfig::default()
//! };
//! let model = LightGcn::new(config)?;
//! let trained = model.train(&train, None)?;
//!
//! // The only item of its group that user 0 does not have.
//! let best = top_k(&trained.embeddings.scorer(), &[0], &[&train], 1)?;
//! assert_eq!(best[0][0].item, 4);
//!
//! // A new user with two items.
//! let items = &trained.embeddings.items;
//! let new_user = fold_in_user(items.view(), &train.item_degrees(), &[6, 8]);
//! let score = |item: usize| items.row(item).dot(&ndarray::ArrayView1::from(&new_user[..]));
//! assert!(score(7) > score(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`LightGcn`] trains [`NodeEmbeddings`] with the settings in [`LightGcnConfig`].
//! - [`Adjacency`] is the normalised graph, for other models.
//! - [`fold_in_user`] and [`fold_in_item`] embed nodes that are not in the training graph.
//!
//! # Performance
//! With three layers, a step of LightGCN multiplies the whole graph with all embeddings six times.
//! Fetching rows from the cache takes most of the time, which the following measures reduce:
//!
//! - Embeddings are divided by the square root of the degree. Edges then need no values, and a
//!   layer is a sum and one factor per row.
//! - The matrix is cut into tiles: sixteen columns of the embeddings (one cache line, one AVX-512
//!   register) times a block of nodes that fits the first-level cache. Nodes are numbered by
//!   descending degree, which makes the first tiles dense, and ids within a block take 16 bits.
//! - The last layer is computed only for the rows that the batch uses. The first layer of the
//!   backward pass pushes from those rows if this is cheaper than pulling.
//! - Loops are compiled for AVX-512, AVX2 and plain Rust, and selected at run time.
//!
//! The order of every sum is independent of the number of threads and of the instruction set. On
//! one machine, the same data, settings and seed always give bit-identical results.

mod adjacency;
mod columns;
mod config;
mod embeddings;
mod error;
mod file;
mod fold_in;
mod kernel;
mod lines;
mod loss;
mod propagate;
mod sampler;
mod step;
mod tiles;
mod train;
mod trained;

pub use adjacency::Adjacency;
pub use config::{LightGcnConfig, PositiveSampling, Schedule, SelectionMetric};
pub use embeddings::NodeEmbeddings;
pub use error::{Error, Result};
pub use fold_in::{fold_in_item, fold_in_user};
pub use train::LightGcn;
pub use trained::{EpochReport, Trained};
