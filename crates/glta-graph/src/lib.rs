//! LightGCN on a CPU: interaction graph, propagation and BPR training.

mod adjacency;
mod config;
mod embeddings;
mod error;
mod kernel;
mod lines;
mod loss;
mod propagate;
mod sampler;
mod step;
mod tiles;
mod train;

pub use adjacency::Adjacency;
pub use config::{
    LightGcnConfig, Loss, NegativeSampling, PositiveSampling, Schedule, SelectionMetric,
};
pub use embeddings::NodeEmbeddings;
pub use error::{Error, Result};
pub use train::{EpochReport, LightGcn, Trained};
