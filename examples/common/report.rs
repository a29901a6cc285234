use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use glta::align::Config;
use glta::data::{Split, Stats};
use glta::metrics::{Buckets, Metric, Report};
use glta::shared::write_whole;
use serde::{Deserialize, Serialize};

use super::Result;

/// What `metrics.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub dataset: Stats,
    pub protocol: Protocol,
    pub llm: Option<LlmRecord>,
    pub config: Option<Config>,
    pub rows: Vec<Row>,
}

/// Mean and deviation of a metric over the seeds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Value {
    pub mean: f64,
    pub deviation: f64,
    pub seeds: usize,
}

impl Value {
    /// `None` of no values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let seeds = values.len();
        let mean = values.iter().sum::<f64>() / seeds as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = if seeds > 1 { (squares / (seeds - 1) as f64).sqrt() } else { 0.0 };
        (seeds > 0).then_some(Self { mean, deviation, seeds })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Protocol {
    pub split: String,
    pub test_ratio: f64,
    pub valid_ratio: f64,
    #[serde(default)]
    pub cold_ratio: f64,
    pub seeds: Vec<u64>,
    pub masked: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct LlmRecord {
    pub name: String,
    pub layers: usize,
    pub bits: Option<u32>,
    pub group_size: Option<i32>,
}

/// One system under one seed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    pub system: String,
    pub seed: u64,
    /// What was chosen on validation data, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub settings: String,
    /// Test metrics by short name (`N@10`), and `valid_N@10`.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// Test N@20 of the items whose training degree lies in a range.
    #[serde(default)]
    pub by_item_degree: BTreeMap<String, f64>,
    /// Test N@20 of the users whose number of training items lies in a range.
    #[serde(default)]
    pub by_user_activity: BTreeMap<String, f64>,
    /// Test metrics of each user; kept in a file of their own.
    #[serde(skip)]
    pub users: UserMetrics,
    /// At 20: cold items ranked among themselves (`cold`), cold and warm ones within
    /// all items (`cold/all`, `warm/all`), share of cold items in the lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cold: BTreeMap<String, f64>,
    pub train_seconds: f64,
    pub seconds_per_epoch: f64,
    pub epochs: usize,
    pub peak_rss_mb: u64,
}

impl Row {
    pub fn new(
        system: &str,
        seed: u64,
        test: &Report,
        valid: Option<f64>,
        split: &Split,
    ) -> Result<Self> {
        let wanted = ["P@5", "P@10", "N@5", "N@10", "R@20", "N@20"];
        let mut metrics: BTreeMap<String, f64> =
            test.iter().filter(|(name, _)| wanted.contains(&name.as_str())).collect();
        metrics.extend(valid.map(|v| ("valid_N@10".to_owned(), v)));
        let degrees = split.train.item_degrees();
        let by_item_degree = test
            .by_item_degree(&split.test, &degrees, &Buckets::default())?
            .into_iter()
            .filter_map(|b| Some((b.label, b.report.get(Metric::Ndcg, 20)?)))
            .collect();
        let by_user_activity = test
            .by_user_activity(&split.train, &Buckets::default())?
            .into_iter()
            .filter(|b| b.users > 0)
            .filter_map(|b| Some((b.label, b.report.get(Metric::Ndcg, 20)?)))
            .collect();
        let values = |k| test.per_user(Metric::Ndcg, k).unwrap_or_default().to_vec();
        let users =
            UserMetrics { users: test.users().to_vec(), ndcg_10: values(10), ndcg_20: values(20) };
        Ok(Self {
            system: system.to_owned(),
            seed,
            metrics,
            by_item_degree,
            by_user_activity,
            users,
            peak_rss_mb: peak_rss_mb(),
            ..Self::default()
        })
    }
}

/// Test metrics of every user with test items, for paired tests.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UserMetrics {
    pub users: Vec<u32>,
    pub ndcg_10: Vec<f64>,
    pub ndcg_20: Vec<f64>,
}

impl UserMetrics {
    /// Those of a row, where [`Row::save_users`] put them.
    pub fn load(out: &Path, system: &str, seed: u64) -> Result<Self> {
        let path = users_path(out, system, seed);
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?)
    }
}

impl UserMetrics {
    /// Adds the users of another seed.
    pub fn append(&mut self, other: Self) {
        self.users.extend(other.users);
        self.ndcg_10.extend(other.ndcg_10);
        self.ndcg_20.extend(other.ndcg_20);
    }
}

fn users_path(out: &Path, system: &str, seed: u64) -> PathBuf {
    let name: String = system
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '+' { c } else { '-' })
        .collect();
    out.join(format!("seed-{seed}")).join("users").join(format!("{name}.json"))
}

impl Row {
    /// Leaves the users' metrics in the output folder.
    pub fn save_users(&self, out: &Path) -> Result<()> {
        let path = users_path(out, &self.system, self.seed);
        let folder = path.parent().unwrap_or(out);
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        save(&path, &serde_json::to_vec(&self.users)?)
    }
}

/// Writes a file as a whole or not at all.
pub fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes).map_err(|e| format!("{}: {e}", path.display()).into())
}

impl Row {
    /// Adds what is said of cold items: `test` ranks all items, `among` the cold
    /// ones alone.
    pub fn add_cold(&mut self, split: &Split, test: &Report, among: &Report) -> Result<()> {
        let is_cold = |item: &u32| split.cold_items.binary_search(item).is_ok();
        let part = |cold| test.with_truth(&split.test.filter(|_, item| is_cold(&item) == cold));
        for (name, report) in
            [("cold", among), ("cold/all", &part(true)?), ("warm/all", &part(false)?)]
        {
            for (short, metric) in [("N", Metric::Ndcg), ("R", Metric::Recall)] {
                let value = report.get(metric, 20);
                self.cold.extend(value.map(|value| (format!("{name} {short}"), value)));
            }
        }
        let lists = (0..test.users().len()).map(|row| test.ranking(row));
        let (mut shown, mut cold) = (0, 0);
        for list in lists {
            shown += list.len();
            cold += list.iter().filter(|item| is_cold(item)).count();
        }
        self.cold.insert("cold share".to_owned(), cold as f64 / shown.max(1) as f64);
        Ok(())
    }
}

impl Record {
    /// The record of an earlier run, if there is one.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|e| told(&e))?,
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|e| told(&e))?;
        // Statistics alone are no run.
        Ok(Some(record).filter(|r| r.config.is_some() || !r.rows.is_empty()))
    }

    /// The names in the order of their first rows.
    pub fn systems(&self) -> Vec<&str> {
        let mut systems: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !systems.contains(&row.system.as_str()) {
                systems.push(&row.system);
            }
        }
        systems
    }

    /// A metric of a system over the seeds.
    pub fn value(&self, system: &str, metric: &str) -> Option<Value> {
        let rows = self.rows.iter().filter(|row| row.system == system);
        Value::of(rows.filter_map(|row| row.metrics.get(metric).copied()))
    }

    /// The row of a system under a seed, if it was run before.
    pub fn row(&self, system: &str, seed: u64) -> Option<&Row> {
        self.rows.iter().find(|row| row.system == system && row.seed == seed)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        save(path, &serde_json::to_vec_pretty(self)?)
    }

    /// The rows as a table: one line a system, metrics averaged over the seeds.
    pub fn table(&self) -> String {
        let columns = ["P@5", "P@10", "N@5", "N@10", "R@20", "N@20", "valid_N@10"];
        self.means("system", &columns.map(String::from), |row| &row.metrics)
    }

    /// The same by the training degree of the items to be found.
    pub fn buckets(&self) -> String {
        self.means("N@20 by degree", &Buckets::default().labels(), |row| &row.by_item_degree)
    }

    /// The same by how many training items the user has.
    pub fn activity(&self) -> String {
        self.means("N@20 by activity", &Buckets::default().labels(), |row| &row.by_user_activity)
    }

    /// Cold and warm items at 20.
    pub fn cold(&self) -> String {
        let columns = [
            "cold N",
            "cold R",
            "cold/all N",
            "cold/all R",
            "warm/all N",
            "warm/all R",
            "cold share",
        ];
        let table = self.means("cold items, at 20", &columns.map(String::from), |row| &row.cold);
        // Such an order can look good: low ids of MovieLens are the popular films.
        table
            + "\n(a system that cannot tell cold items apart, such as Popularity and EASE, lists them\n \
               by id: its \"cold\" columns measure the order of the raw files)"
    }

    fn means(
        &self,
        title: &str,
        columns: &[String],
        values_of: impl Fn(&Row) -> &BTreeMap<String, f64>,
    ) -> String {
        let mut out = format!("{title:<18}");
        for column in columns {
            out += &format!("{column:>11}");
        }
        for system in self.systems() {
            let rows: Vec<&Row> = self.rows.iter().filter(|r| r.system == system).collect();
            out += &format!("\n{system:<18}");
            for column in columns {
                match Value::of(rows.iter().filter_map(|r| values_of(r).get(column).copied())) {
                    None => out += &format!("{:>11}", "-"),
                    Some(value) => out += &format!("{:>11.4}", value.mean),
                }
            }
        }
        out
    }
}

/// Largest resident memory of this process so far, where the system tells.
pub fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kb| kb / 1024)
}
