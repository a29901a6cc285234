//! The result of one system and one seed.

use std::collections::BTreeMap;

use glta_data::Split;
use glta_metrics::{Buckets, Metric, Report};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::ProtocolConfig;
use crate::{MetricAt, Result};

/// Chosen settings by name.
pub type Settings = BTreeMap<String, Value>;

/// The metric that is reported by bucket.
const BUCKETED: MetricAt = MetricAt::new(Metric::Ndcg, 20);

/// The learning curve of a system that trains by epochs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Mean training loss of every epoch.
    pub losses: Vec<f64>,
    /// `(finished epochs, N@10 on the validation items)` of every evaluation.
    pub validation: Vec<(usize, f64)>,
}

impl Curve {
    /// Creates a curve from consecutive epochs, each with its loss and its evaluation, if any.
    pub(crate) fn of(epochs: impl IntoIterator<Item = (f64, Option<f64>)>) -> Self {
        let mut curve = Self::default();
        for (epoch, (loss, validation)) in (1..).zip(epochs) {
            curve.losses.push(loss);
            curve.validation.extend(validation.map(|value| (epoch, value)));
        }
        curve
    }
}

/// The result of one system and one seed, a row of `metrics.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the system.
    pub system: String,
    /// Seed of the split and of all training.
    pub seed: u64,
    /// Settings that were chosen on validation data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: Settings,
    /// Test metrics by name, such as `N@10`, and the validation metric `valid_N@10`.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// Test N@20 by bucket of the items' training degree.
    #[serde(default)]
    pub by_item_degree: BTreeMap<String, f64>,
    /// Test N@20 by bucket of the users' number of training items.
    #[serde(default)]
    pub by_user_activity: BTreeMap<String, f64>,
    /// Metrics at cut-off 20 for cold items: cold items ranked among themselves (`cold`), cold and
    /// warm items ranked among all items (`cold/all`, `warm/all`), and the share of cold items in
    /// the lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cold: BTreeMap<String, f64>,
    /// Training time in seconds. After a search over settings, the mean per setting.
    pub train_seconds: f64,
    /// Training time per epoch, in seconds.
    pub seconds_per_epoch: f64,
    /// Number of trained epochs.
    pub epochs: usize,
    /// Peak resident memory of the process so far, in MiB.
    pub peak_rss_mb: u64,
    /// Learning curve with the chosen settings, if the system trains by epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
}

impl Row {
    /// Creates a row with the test metrics of a report, in total and by bucket.
    pub(crate) fn measured(
        system: &str,
        seed: u64,
        test: &Report,
        split: &Split,
        protocol: &ProtocolConfig,
    ) -> Result<Self> {
        let metrics = protocol.metrics.iter();
        let metrics = metrics.filter_map(|m| Some((m.to_string(), m.of(test)?))).collect();
        let degrees = split.train.item_degrees();
        let by_item_degree = test
            .by_item_degree(&split.test, &degrees, &Buckets::default())?
            .into_iter()
            .filter_map(|b| Some((b.label, BUCKETED.of(&b.report)?)))
            .collect();
        let by_user_activity = test
            .by_user_activity(&split.train, &Buckets::default())?
            .into_iter()
            .filter(|b| b.users > 0)
            .filter_map(|b| Some((b.label, BUCKETED.of(&b.report)?)))
            .collect();
        Ok(Self {
            system: system.to_owned(),
            seed,
            metrics,
            by_item_degree,
            by_user_activity,
            ..Self::default()
        })
    }

    /// Adds the metrics of cold items. `test` ranks all items, `among` only the cold items.
    pub(crate) fn add_cold(&mut self, split: &Split, test: &Report, among: &Report) -> Result<()> {
        let is_cold = |item: &u32| split.cold_items.binary_search(item).is_ok();
        let part = |cold| test.with_truth(&split.test.filter(|_, item| is_cold(&item) == cold));
        let (cold, warm) = (part(true)?, part(false)?);
        for (name, report) in [("cold", among), ("cold/all", &cold), ("warm/all", &warm)] {
            for (short, metric) in [("N", Metric::Ndcg), ("R", Metric::Recall)] {
                let value = report.get(metric, 20);
                self.cold.extend(value.map(|value| (format!("{name} {short}"), value)));
            }
        }
        let (mut shown, mut cold) = (0, 0);
        for list in (0..test.users().len()).map(|row| test.ranking(row)) {
            let list = &list[..list.len().min(20)];
            shown += list.len();
            cold += list.iter().filter(|item| is_cold(item)).count();
        }
        self.cold.insert("cold share".to_owned(), cold as f64 / shown.max(1) as f64);
        Ok(())
    }
}

/// Returns the peak resident memory of this process so far, in MiB; 0 if the operating system does
/// not report it.
pub fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kb.map_or(0, |kb| kb / 1024)
}
