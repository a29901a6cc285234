//! The contrastive baselines of GLTA's tables: LightGCN+, HCCF, HCCF+ and RLMRec. They are one
//! [`Contrastive`] model with different settings. The crate `glta-linear` has popularity, EASE and
//! text-kNN, `glta-graph` has LightGCN.

mod contrastive;
mod error;

pub use contrastive::{
    Contrastive, ContrastiveConfig, ContrastiveEpoch, NodeTexts, TrainedContrastive,
};
pub use error::{Error, Result};
