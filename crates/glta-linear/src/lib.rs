//! Linear item models in closed form: the score of an item is a weighted sum over the user's items.
//! No weight is trained by gradient.
//!
//! - [`LinearModel`]: EASE with text vectors in its Gram matrix, text neighbours and popularity,
//!   with weights that are chosen on validation data.
//! - [`Ease`], [`TextKnn`], [`EaseText`] and [`Popularity`]: the parts of [`LinearModel`] as
//!   separate models.
//! - [`whiten`] prepares the text vectors of a language model.
//!
//! Each model is a [`Scorer`](glta_metrics::Scorer), so all are evaluated in the same way:
//!
//! ```
//! use glta_data::Interactions;
//! use glta_linear::{Ease, EaseConfig, Popularity};
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

mod choose;
mod config;
mod degrees;
mod ease;
mod error;
mod explain;
mod exponentials;
mod file;
mod fit;
mod fit_ease;
mod form;
mod grow;
mod idle;
mod keep;
mod model;
mod neighbours;
mod popularity;
mod problem;
mod progress;
mod ranges;
mod report;
mod solve;
mod solved;
mod sparse;
mod temperature;
mod tensors;
#[cfg(test)]
mod tests;
mod text_knn;
mod tf_idf;
mod touched;
mod vectors;
mod weigh;
mod weights;
mod whiten;

pub use config::LinearConfig;
pub use ease::{Ease, EaseConfig};
pub use error::{Error, Result};
pub use explain::Explanation;
pub use fit_ease::EaseGrid;
pub use form::{Form, Solver};
pub use grow::Growing;
pub use model::LinearModel;
pub use neighbours::TextNeighbours;
pub use popularity::Popularity;
pub use progress::{LinearStage, LinearStep};
pub use report::LinearReport;
pub use text_knn::{EaseText, TextKnn, TextKnnConfig};
pub use tf_idf::{TfIdf, TfIdfConfig};
pub use vectors::TextVectors;
pub use whiten::{WhitenConfig, Whitening, whiten};
