//! Recommenders that GLTA is compared with, trained by contrast: LightGCN+, HCCF, HCCF+
//! and RLMRec, one [`Contrastive`] under different settings. Popularity, EASE and
//! text-kNN are in `glta-linear`, LightGCN in `glta-graph`.

mod contrastive;
mod error;

pub use contrastive::{
    Contrastive, ContrastiveConfig, ContrastiveEpoch, NodeTexts, TrainedContrastive,
};
pub use error::{Error, Result};
