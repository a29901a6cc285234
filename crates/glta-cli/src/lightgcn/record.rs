//! The content of `metrics.json`.

use std::collections::BTreeMap;

use glta_data::{Report, Stats};
use glta_graph::{LightGcnConfig, Trained};
use glta_metrics::Report as Metrics;
use serde::Serialize;
use serde_json::{Value, json};

use super::args::LightgcnArgs;
use super::data::Data;
use glta_eval::peak_rss_mb;

/// Metrics and duration of one seed.
pub(super) struct SeedResult {
    /// Configuration with the seed and the chosen settings.
    pub(super) config: LightGcnConfig,
    pub(super) trained: Trained,
    pub(super) report: Metrics,
    /// Duration of the training and of the search in seconds.
    pub(super) seconds: f64,
}

/// The content of `metrics.json`.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    dataset: Stats,
    /// Report on skipped and doubtful rows of the files.
    data: &'a Report,
    protocol: Value,
    /// Configuration of the first seed. Every row contains the configuration of its own seed.
    config: Option<&'a LightGcnConfig>,
    rows: Vec<Value>,
}

pub(super) fn record<'a>(
    args: &LightgcnArgs,
    data: &'a Data,
    seeds: &[u64],
    results: &'a [SeedResult],
) -> Record<'a> {
    Record {
        dataset: data.dataset.stats(),
        data: data.dataset.report(),
        protocol: json!({
            "split": if args.test.is_some() { "published files" } else { "random per user" },
            "test_ratio": args.test.is_none().then_some(args.test_ratio),
            "valid_ratio": args.valid_ratio,
            "seeds": seeds,
            "masked": if args.valid_ratio > 0.0 { "train+valid" } else { "train" },
        }),
        config: results.first().map(|result| &result.config),
        rows: results.iter().map(SeedResult::row).collect(),
    }
}

impl SeedResult {
    fn row(&self) -> Value {
        let Self { config, trained, report, seconds } = self;
        let epochs = trained.history.len();
        let trained_for: f64 = trained.history.iter().map(|e| e.seconds).sum();
        let mut row = BTreeMap::from([
            ("system".to_owned(), json!("LightGCN")),
            ("seed".to_owned(), json!(config.seed)),
            ("config".to_owned(), json!(config)),
            ("train_seconds".to_owned(), json!(seconds)),
            ("seconds_per_epoch".to_owned(), json!(trained_for / epochs.max(1) as f64)),
            ("epochs".to_owned(), json!(epochs)),
            ("best_epoch".to_owned(), json!(trained.best_epoch)),
            ("peak_rss_mb".to_owned(), json!(peak_rss_mb())),
        ]);
        row.extend(report.iter().map(|(name, value)| (name, json!(value))));
        if let (Some(value), true) = (trained.best_validation(), config.keep_best) {
            let selection = config.selection;
            let name = format!("valid_{}@{}", selection.metric.short_name(), selection.k);
            row.insert(name, json!(value));
        }
        json!(row)
    }
}
