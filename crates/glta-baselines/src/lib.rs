//! The contrastive baselines of GLTA's tables. LightGCN+, HCCF, HCCF+ and RLMRec are one
//! [`Contrastive`] model with different settings. [`AlphaRec`] has no node embeddings and trains
//! only an MLP over text vectors. The crate `glta-linear` provides popularity, EASE and text-kNN,
//! and `glta-graph` provides LightGCN.

mod alpharec;
mod checks;
mod contrastive;
mod error;
mod mlp;
mod ops;
mod propagate;
#[cfg(test)]
mod small_data;
mod tensors;
mod train;

pub use alpharec::{AlphaRec, AlphaRecConfig};
pub use contrastive::{Contrastive, ContrastiveConfig, NodeTexts};
pub use error::{Error, Result};
pub use train::{ContrastiveEpoch, TrainedContrastive};
