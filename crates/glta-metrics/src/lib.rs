//! Ranking metrics and full-ranking evaluation for recommenders.
//!
//! A model is a [`Scorer`]: it gives every item a score for a user. [`evaluate`] ranks *all* items
//! for every user with held-out items, masks the items that the user is known to have, and measures
//! the rankings. [`top_k`] returns the ranked items with their scores. [`evaluate_rankings`]
//! measures given rankings. [`Metric`] defines the metrics.
//!
//! A [`Report`] contains every user's ranking and values. It can be broken down by popularity and
//! activity ([`Report::by_item_degree`], [`Report::by_user_activity`]), and it measures the
//! diversity of the lists ([`Report::coverage`], [`Report::gini`], [`Report::average_popularity`]).
//! [`Paired`] compares two reports over the same users.
//!
//! ```
//! use glta_data::Interactions;
//! use glta_metrics::{DotScorer, EvaluationConfig, Metric, evaluate, top_k};
//! use ndarray::array;
//!
//! let users = array![[1.0, 0.0], [0.0, 1.0]];
//! let items = array![[0.9, 0.1], [0.8, 0.3], [0.2, 0.7], [0.1, 0.6]];
//! let scorer = DotScorer { users: users.view(), items: items.view() };
//!
//! let train = Interactions::from_pairs(2, 4, [(0, 0), (1, 2)])?;
//! let test = Interactions::from_pairs(2, 4, [(0, 1), (1, 0)])?;
//! let config = EvaluationConfig { ks: vec![1, 2], ..Default::default() };
//! let report = evaluate(&scorer, &test, &[&train], &config)?;
//! // The held-out item is at rank 1 for user 0 and at rank 3 for user 1 (item 2 is masked).
//! assert_eq!(report.get(Metric::Precision, 1), Some(0.5));
//! assert_eq!(report.per_user(Metric::Ndcg, 1), Some(&[1.0, 0.0][..]));
//!
//! let best = top_k(&scorer, &[1], &[&train], 2)?;
//! assert_eq!(best[0][0].item, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod beyond;
mod buckets;
mod compare;
mod error;
mod evaluate;
mod metric;
mod rank;
mod report;
mod scorer;
mod select;

pub use buckets::{Bucket, Buckets};
pub use compare::{Bootstrap, BootstrapConfig, Paired, TTest};
pub use error::{Error, Result};
pub use evaluate::{EvaluationConfig, evaluate, evaluate_rankings, top_k};
/// The interactions that `evaluate` and `top_k` take.
pub use glta_data::Interactions;
pub use metric::Metric;
pub use report::Report;
pub use scorer::{DotScorer, Scorer, ScorerError};
pub use select::{Ranked, best};
