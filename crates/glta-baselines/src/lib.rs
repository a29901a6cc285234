//! Recommenders that GLTA is compared with.
//!
//! Each one is a [`Scorer`](glta_metrics::Scorer), so that all go through the
//! same evaluation:
//!
//! ```
//! use glta_baselines::{Ease, EaseConfig, Popularity};
//! use glta_data::Interactions;
//! use glta_metrics::{EvaluationConfig, Metric, evaluate};
//!
//! let train = Interactions::from_pairs(3, 4, [(0, 0), (0, 1), (1, 0), (2, 0), (2, 2)])?;
//! let test = Interactions::from_pairs(3, 4, [(1, 1)])?;
//! let config = EvaluationConfig { ks: vec![1], ..Default::default() };
//!
//! let popularity = evaluate(&Popularity::fit(&train), &test, &[&train], &config)?;
//! let ease = Ease::fit(&train, &EaseConfig { l2: 10.0, ..Default::default() })?;
//! let ease = evaluate(&ease, &test, &[&train], &config)?;
//! assert!(ease.get(Metric::HitRate, 1) >= popularity.get(Metric::HitRate, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The feature `text-encoder` adds `SentenceEncoder` (MiniLM), which takes about a
//! minute more to compile.

mod contrastive;
mod ease;
mod error;
mod popularity;
#[cfg(feature = "text-encoder")]
mod text_encoder;
mod text_knn;
mod whiten;

pub use contrastive::{Contrastive, ContrastiveConfig, ContrastiveEpoch, NodeTexts};
pub use ease::{Ease, EaseConfig, SideInformation};
pub use error::{Error, Result};
pub use popularity::Popularity;
#[cfg(feature = "text-encoder")]
pub use text_encoder::SentenceEncoder;
pub use text_knn::{EaseText, TextKnn, TextKnnConfig};
pub use whiten::{WhitenConfig, whiten};
