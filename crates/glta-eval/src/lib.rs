//! Experiments: from a data set to a table of recommenders in one call.
//!
//! - [`Experiment`] splits a data set for each seed, fits every system, chooses its settings on
//!   validation data, and measures it on the test part. An interrupted experiment can be resumed
//!   after each system and seed. [`ExperimentConfig`] is the configuration.
//! - A [`System`] is a recommender with a row in the table. The crate provides popularity, EASE,
//!   text-kNN, EASE + text, LightGCN, the contrastive graph models, and GLTA with its controls and
//!   ablations. [`Experiment::system`] adds your own system.
//! - [`Record`] is the result of an experiment (`metrics.json`): tables, buckets, paired tests
//!   ([`Record::comparisons`]), plots, and the paper's result section ([`Record::paper_report`]).
//!   For each row, a file contains every user's list, test items and metrics by raw ids
//!   ([`UserResult`]).
//!
//! ```
//! use glta_data::{Dataset, ShopConfig};
//! use glta_eval::{Density, Experiment, ExperimentConfig, Preset};
//!
//! let shop = Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() })?;
//! let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
//! config.set("protocol.split=leave_one_out")?;
//! config.set("protocol.metrics=[\"H@10\", \"MRR@10\"]")?;
//! config.run.only = vec!["Popularity".into(), "EASE".into()];
//!
//! let folder = tempfile::tempdir()?;
//! let record = Experiment::new(&shop, folder.path(), config).run()?;
//! println!("{}", record.table());
//! assert!(record.value("EASE", "H@10").is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claims;
mod compare;
mod config;
mod error;
mod event;
mod experiment;
mod identity;
mod lists;
mod llm_path;
mod measure;
mod metric_at;
pub mod paper;
mod plot;
mod reason;
mod record;
mod report;
mod row;
mod seed;
mod shared;
mod system;
mod systems;
mod table;
mod users;

pub use compare::Comparison;
pub use config::{BaselinesConfig, ExperimentConfig, ProtocolConfig, RunConfig};
pub use error::{BoxError, Error, Result};
pub use event::{Event, Progress};
pub use experiment::Experiment;
pub use glta_align::{Density, Preset};
pub use identity::EncoderRecord;
pub use lists::evaluate_lists;
pub use llm_path::{LlmPathConfig, LlmPathCost, LlmPathVerdict};
pub use metric_at::MetricAt;
pub use record::{LlmRecord, Protocol, RECORD, Record, Skipped, Value};
pub use row::{Curve, Row, Settings, peak_rss_mb};
pub use seed::Seed;
pub use system::{Fitted, System};
pub use table::comparison_table;
pub use users::UserResult;
