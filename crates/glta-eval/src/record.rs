//! The record of an experiment, stored in `metrics.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use glta_core::write_whole;
use glta_data::{Report, SplitMethod, Stats};
use serde::{Deserialize, Serialize};

use crate::config::{ExperimentConfig, ProtocolConfig, RunConfig};
use crate::identity::EncoderRecord;
use crate::row::Row;
use crate::users::{self, UserResult};
use crate::{Error, Result};

/// File name of the record in the folder of an experiment.
pub const RECORD: &str = "metrics.json";

/// The record of an experiment, stored in `metrics.json` in its folder.
///
/// ```
/// use glta_data::{Dataset, ShopConfig};
/// use glta_eval::{Density, Experiment, ExperimentConfig, Preset, Record};
///
/// let shop = Dataset::shop(&ShopConfig { users: 60, items: 50, ..ShopConfig::default() })?;
/// let mut config = ExperimentConfig::new(Preset::Default, Density::Sparse);
/// config.run.only = vec!["Popularity".into(), "EASE".into()];
/// let folder = tempfile::tempdir()?;
/// Experiment::new(&shop, folder.path(), config).run()?;
///
/// let record = Record::load(folder.path())?.ok_or("no record")?;
/// assert_eq!(record.systems(), ["Popularity", "EASE"]);
/// assert!(record.value("EASE", "N@10").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Statistics of the data set.
    pub dataset: Stats,
    /// Numbers of rows and values that were dropped, merged or missing when the data were read and
    /// filtered.
    #[serde(default)]
    pub data: Report,
    /// The protocol: split, seeds and masked items.
    pub protocol: Protocol,
    /// The language model; `None` if the experiment has none.
    pub llm: Option<LlmRecord>,
    /// SHA-256 of the ids, texts and interactions of the data set.
    pub data_hash: String,
    /// The sentence encoder of the contrastive models, and of the linear models if
    /// `item_text.encoders` contains `sentence`. `None` if the experiment has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_encoder: Option<EncoderRecord>,
    /// SHA-256 of each file of text vectors in `item_text.files`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub text_vectors: BTreeMap<PathBuf, String>,
    /// The complete configuration; `None` if the experiment has not started.
    pub config: Option<ExperimentConfig>,
    /// Systems that were not run, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// One row per system and seed.
    pub rows: Vec<Row>,
    /// Path of the experiment's folder.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// A readable description of the protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// The rule that selects the test and validation items.
    pub split: String,
    /// Share of the interactions of a user in the test part.
    pub test_ratio: f64,
    /// Share of the remaining interactions in the validation part.
    pub valid_ratio: f64,
    /// Share of cold items.
    #[serde(default)]
    pub cold_ratio: f64,
    /// The `run.seeds` of the configuration that was run last.
    pub seeds: Vec<u64>,
    /// The parts of the split whose items cannot be in a user's lists.
    pub masked: String,
}

impl Protocol {
    pub(crate) fn new(protocol: &ProtocolConfig, run: &RunConfig) -> Self {
        let split = match protocol.split {
            SplitMethod::RandomPerUser => "random per user",
            SplitMethod::LeaveOneOut => "leave one out",
            SplitMethod::Temporal => "temporal",
            _ => "other",
        };
        Self {
            split: split.into(),
            test_ratio: protocol.test_ratio,
            valid_ratio: protocol.valid_ratio,
            cold_ratio: protocol.cold_ratio,
            seeds: run.seeds.clone(),
            masked: "train+valid".into(),
        }
    }
}

/// Identity of the language model of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlmRecord {
    /// Folder of the checkpoint, or its id on the Hugging Face hub.
    pub name: String,
    /// SHA-256 of weights, configuration and tokenizer.
    pub hash: String,
    /// Number of layers that prompts use.
    pub layers: usize,
    /// Number of bits per quantised weight; `None` for an unquantised checkpoint.
    pub bits: Option<u32>,
    /// Number of inputs that share a scale and a zero point; −1 for all inputs of an output. `None`
    /// for an unquantised checkpoint.
    pub group_size: Option<i32>,
}

/// A system that was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Name of the system.
    pub system: String,
    /// The reason, as a clause such as "there is no language model".
    pub reason: String,
}

impl Record {
    /// Loads the record in the folder of an experiment. Returns `None` if the folder contains no
    /// record, or a record with neither rows nor a configuration.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or parsed.
    pub fn load(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let path = folder.join(RECORD);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|e| Error::io(&path, e))?,
        };
        let mut record: Self = serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, e))?;
        record.folder = folder.to_owned();
        // A record that has only statistics is not an experiment.
        Ok(Some(record).filter(|r| r.config.is_some() || !r.rows.is_empty()))
    }

    /// Writes the record to `metrics.json`.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.path();
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::file(&path, e))?;
        write_whole(&path, &bytes).map_err(|e| Error::io(&path, e))
    }

    /// Returns the path of `metrics.json`.
    pub fn path(&self) -> PathBuf {
        self.folder.join(RECORD)
    }

    /// Returns the names of the systems, in the order of their first rows.
    pub fn systems(&self) -> Vec<&str> {
        let mut systems: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !systems.contains(&row.system.as_str()) {
                systems.push(&row.system);
            }
        }
        systems
    }

    /// Returns the row of a system and a seed; `None` if there is no such row.
    pub fn row(&self, system: &str, seed: u64) -> Option<&Row> {
        self.rows.iter().find(|row| row.system == system && row.seed == seed)
    }

    /// Iterates over the rows of a system, one per seed.
    pub fn rows_of<'a>(&'a self, system: &'a str) -> impl Iterator<Item = &'a Row> + 'a {
        self.rows.iter().filter(move |row| row.system == system)
    }

    /// Returns the seeds of the rows in ascending order.
    pub fn seeds(&self) -> Vec<u64> {
        let seeds: BTreeSet<u64> = self.rows.iter().map(|row| row.seed).collect();
        seeds.into_iter().collect()
    }

    /// Returns the mean and the standard deviation over the seeds of a metric, such as `N@10`, for
    /// a system; `None` if no row of the system contains the metric.
    pub fn value(&self, system: &str, metric: &str) -> Option<Value> {
        Value::of(self.rows_of(system).filter_map(|row| row.metrics.get(metric).copied()))
    }

    /// Reads the results of all users with test items, for one row.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or parsed.
    pub fn users(&self, system: &str, seed: u64) -> Result<Vec<UserResult>> {
        users::load(&users::path(&self.folder, system, seed))
    }

    /// Returns the system that is compared with all others: the main row of the preset if the
    /// record contains it, otherwise the last system. Returns `None` for a record without rows.
    pub fn main_system(&self) -> Option<&str> {
        let main = self.config.as_ref().map(|config| crate::systems::main_name(config.preset));
        let systems = self.systems();
        systems.iter().find(|s| Some(**s) == main).or(systems.last()).copied()
    }
}

/// Mean and standard deviation of a metric over the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    /// Mean over the seeds.
    pub mean: f64,
    /// Sample standard deviation; 0 for one seed.
    pub deviation: f64,
    /// Number of seeds with a value.
    pub seeds: usize,
}

impl Value {
    /// Computes the mean and the standard deviation; returns `None` if there are no values.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let seeds = values.len();
        let mean = values.iter().sum::<f64>() / seeds as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = if seeds > 1 { (squares / (seeds - 1) as f64).sqrt() } else { 0.0 };
        (seeds > 0).then_some(Self { mean, deviation, seeds })
    }
}
