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
//! // The one item of its group that user 0 does not have yet.
//! let best = top_k(&trained.embeddings.scorer(), &[0], &[&train], 1)?;
//! assert_eq!(best[0][0].item, 4);
//!
//! // Someone new, from two items.
//! let items = &trained.embeddings.items;
//! let new_user = fold_in_user(items.view(), &train.item_degrees(), &[6, 8]);
//! let score = |item: usize| items.row(item).dot(&ndarray::ArrayView1::from(&new_user[..]));
//! assert!(score(7) > score(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`LightGcn`] trains [`NodeEmbeddings`]; [`LightGcnConfig`] has its settings.
//! - [`Adjacency`] is the normalised graph, for models of one's own.
//! - [`fold_in_user`] and [`fold_in_item`] embed nodes that training never saw.
//!
//! # How it is fast
//! A step of LightGCN multiplies the whole graph with all embeddings six times.
//! What binds is fetching rows from cache, so:
//!
//! - Embeddings are kept divided by the square root of the degree. Edges then
//!   carry no value, and a layer is a sum and one factor per row.
//! - The matrix is cut into tiles: sixteen columns of the embeddings (one cache
//!   line, one AVX-512 register) times a block of nodes that fits the first-level
//!   cache. Nodes are numbered by falling degree, which makes the first tiles
//!   dense, and ids within a block take 16 bits.
//! - The last layer is computed for the rows that the batch sees only, and the
//!   first layer of the backward pass is pushed from those rows where that is
//!   cheaper than pulling.
//! - Loops are compiled for AVX-512, AVX2 and plain processors and chosen at run
//!   time.
//!
//! All sums have an order that does not depend on the number of threads or the
//! instruction set: a seed gives the same bits everywhere on a machine.

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
