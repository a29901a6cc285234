//! Flags of `glta lightgcn`.

use std::path::PathBuf;

use clap::Args;

use crate::tables::TableFlags;

/// Flags of `glta lightgcn`.
#[derive(Debug, Clone, Args)]
pub struct LightgcnArgs {
    /// File of training interactions, plain or gzipped.
    #[arg(long, value_name = "FILE", help_heading = "Tables")]
    pub(super) train: PathBuf,
    /// File of test interactions with the same ids; without it, a share of each user's items in the
    /// training file is held out.
    #[arg(long, value_name = "FILE", help_heading = "Tables")]
    pub(super) test: Option<PathBuf>,
    /// Share of each user's items that is held out if there is no test file.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, help_heading = "Tables")]
    pub(super) test_ratio: f64,
    /// Folder for the results.
    #[arg(long, value_name = "DIR", default_value = "runs/lightgcn", help_heading = "Output")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) table: TableFlags,
    /// Share of each user's training items for validation; 0 trains on all of them for the full
    /// number of epochs.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, help_heading = "Tables")]
    pub(super) valid_ratio: f64,
    /// Seeds of the split and of training; splitting, training and evaluation run once for each.
    #[arg(long, value_name = "N", value_delimiter = ',', help_heading = "Settings")]
    pub(super) seed: Vec<u64>,
    /// TOML file of LightGCN settings.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub(super) config: Option<PathBuf>,
    /// Set one field of the configuration after --config is applied, such as layers=2; the flag may
    /// be repeated.
    #[arg(long = "set", value_name = "FIELD=VALUE", help_heading = "Settings")]
    pub(super) set: Vec<String>,
    /// TOML file with lists of values; every combination is trained, and the best on validation
    /// data is kept.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub(super) search: Option<PathBuf>,
    /// File of initial layer-0 embeddings, such as layer0.safetensors of an earlier run, which
    /// replace the random ones.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub(super) start: Option<PathBuf>,
    /// If there are no validation data, evaluate on the test data during training, to plot the
    /// curve; the results choose no setting and do not stop training.
    #[arg(long, help_heading = "Settings")]
    pub(super) watch_test: bool,
    /// Number of threads [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Settings")]
    pub(super) threads: usize,
    /// Print only the result.
    #[arg(long, help_heading = "Output")]
    pub(super) quiet: bool,
}
