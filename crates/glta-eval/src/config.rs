//! The configuration of an experiment: plain data, saved with its record.

use glta_align::{Config, Density, Preset};
use glta_core::settings;
use glta_data::{SplitConfig, SplitMethod, TextConfig};
use glta_linear::WhitenConfig;
use glta_metrics::Metric;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, MetricAt, Result};

/// Everything that decides what an experiment does. In a file, the fields of
/// [`glta`](Self::glta) stand at the top level, beside the sections `run`, `protocol` and
/// `baselines`.
///
/// ```
/// use glta_eval::{Density, ExperimentConfig, Preset};
///
/// let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
/// config.set("protocol.split=leave_one_out")?;
/// config.merge_toml("[run]\nonly = [\"EASE\", \"GLTA\"]\n[graph]\nepochs = 10")?;
/// assert_eq!(config.glta.graph.epochs, 10);
/// # Ok::<(), glta_eval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentConfig {
    /// The preset that `glta` started from. It names the main row and the row that the
    /// ablations start from.
    pub preset: Preset,
    /// What is run.
    pub run: RunConfig,
    /// How it is measured.
    pub protocol: ProtocolConfig,
    /// What is tried for the baselines.
    pub baselines: BaselinesConfig,
    /// The configuration of the main row.
    #[serde(flatten)]
    pub glta: Config,
}

/// The seeds and systems of an experiment. A resumed experiment may change them: rows that
/// exist are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Seeds of the split and of everything trained, one after the other. Default 2024.
    pub seeds: Vec<u64>,
    /// Names of the only systems to run; empty, the default, for all that are on.
    pub only: Vec<String>,
    /// Run the controls of the main row: the linear item model alone, the same model
    /// without a language model, and with a random one.
    pub controls: bool,
    /// Run the contrastive graph models.
    pub contrastive: bool,
    /// Run the paper's ablations and decoders.
    pub ablations: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seeds: vec![2024],
            only: Vec::new(),
            controls: false,
            contrastive: false,
            ablations: false,
        }
    }
}

/// How systems are measured. Every choice of settings is made on validation N@10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtocolConfig {
    /// Which items are held out.
    pub split: SplitMethod,
    /// Share of a user's items to test on.
    pub test_ratio: f64,
    /// Share of the remaining items to validate on.
    pub valid_ratio: f64,
    /// Share of the items that nothing is trained on.
    pub cold_ratio: f64,
    /// How an item is put into words.
    pub texts: TextConfig,
    /// Columns of the table. Default P@5, P@10, N@5, N@10, R@20, N@20.
    pub metrics: Vec<MetricAt>,
    /// Metrics of the paired tests. Default N@10, N@20.
    pub compare: Vec<MetricAt>,
}

impl Default for ProtocolConfig {
    fn default() -> Self {
        let SplitConfig { method, test_ratio, valid_ratio, cold_ratio, .. } =
            SplitConfig::default();
        let at = MetricAt::new;
        Self {
            split: method,
            test_ratio,
            valid_ratio,
            cold_ratio,
            texts: TextConfig::default(),
            metrics: vec![
                at(Metric::Precision, 5),
                at(Metric::Precision, 10),
                at(Metric::Ndcg, 5),
                at(Metric::Ndcg, 10),
                at(Metric::Recall, 20),
                at(Metric::Ndcg, 20),
            ],
            compare: vec![at(Metric::Ndcg, 10), at(Metric::Ndcg, 20)],
        }
    }
}

impl ProtocolConfig {
    /// The split of a seed.
    pub fn split_config(&self, seed: u64) -> SplitConfig {
        SplitConfig {
            method: self.split,
            test_ratio: self.test_ratio,
            valid_ratio: self.valid_ratio,
            cold_ratio: self.cold_ratio,
            seed,
        }
    }

    /// The share of new items among the items that settings are chosen on which makes their
    /// share of the validation items what it is of the test items.
    fn new_items(&self) -> f64 {
        // The split refuses anything that is not a share.
        let ratio = if (0.0..1.0).contains(&self.cold_ratio) { self.cold_ratio } else { 0.0 };
        let parts = match self.split {
            SplitMethod::LeaveOneOut => 1.0,
            _ => self.valid_ratio / self.test_ratio,
        };
        let odds = ratio / (1.0 - ratio) * parts;
        if odds.is_finite() { odds / (1.0 + odds) } else { 0.0 }
    }

    /// All metrics that are kept for every user.
    pub(crate) fn kept(&self) -> Vec<MetricAt> {
        let mut kept = self.metrics.clone();
        kept.extend(self.compare.iter().filter(|m| !self.metrics.contains(m)));
        kept
    }

    /// The cut-offs of an evaluation: those of the metrics, 10 for choices and 20 for
    /// buckets.
    pub(crate) fn ks(&self) -> Vec<usize> {
        self.kept().iter().map(|m| m.k).chain([10, 20]).collect()
    }
}

/// Settings that are tried for the baselines, on validation data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaselinesConfig {
    /// L2 weights for EASE.
    pub ease_l2: Vec<f64>,
    /// L2 weights for LightGCN and for the contrastive models.
    pub graph_l2: Vec<f32>,
    /// Strengths of the whitening of text vectors, for text-kNN.
    pub whitening: Vec<f64>,
    /// Powers of the cosine, for text-kNN.
    pub powers: Vec<i32>,
    /// Weights of text-kNN beside EASE.
    pub text_weights: Vec<f32>,
    /// Epochs of the contrastive models in place of their own number.
    pub contrastive_epochs: Option<usize>,
}

impl Default for BaselinesConfig {
    fn default() -> Self {
        Self {
            ease_l2: vec![10.0, 30.0, 100.0, 200.0, 400.0],
            graph_l2: vec![1e-4, 1e-3, 1e-2, 1e-1],
            whitening: vec![0.5, 1.0],
            powers: vec![1, 3],
            text_weights: vec![0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
            contrastive_epochs: None,
        }
    }
}

impl BaselinesConfig {
    /// The lists for dense data (stronger L2 for EASE, weaker for LightGCN) or sparse data,
    /// which are the default.
    pub fn new(density: Density) -> Self {
        match density {
            Density::Dense => Self {
                ease_l2: vec![100.0, 200.0, 400.0, 800.0, 1600.0],
                graph_l2: vec![1e-4, 3e-4, 1e-3, 3e-3],
                ..Self::default()
            },
            _ => Self::default(),
        }
    }
}

impl ExperimentConfig {
    /// The configuration of a preset for dense or sparse data.
    pub fn new(preset: Preset, density: Density) -> Self {
        Self {
            preset,
            run: RunConfig::default(),
            protocol: ProtocolConfig::default(),
            baselines: BaselinesConfig::new(density),
            glta: Config::preset(preset, density),
        }
    }

    /// Holds out a share of the items entirely, and chooses the settings of the models that
    /// read texts for such items too: their share of the validation items is then what it is
    /// of the test items, apart from rounding.
    pub fn hold_out_items(&mut self, ratio: f64) {
        self.protocol.cold_ratio = ratio;
        self.glta.linear.new_items = self.protocol.new_items();
    }

    /// Sets one field: `path=value`, such as `graph.epochs=10`.
    ///
    /// # Errors
    /// An unknown field (the message has the near names), a value that does not fit it, or a
    /// field that another one decides: the preset, `seed` and `graph.seed` (`run.seeds`),
    /// `graph.l2` (`baselines.graph_l2`).
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        self.edit(|config| settings::set(config, assignment))
    }

    /// Sets the fields that a TOML text names.
    ///
    /// # Errors
    /// As [`set`](Self::set), or text that is not TOML.
    pub fn merge_toml(&mut self, text: &str) -> Result<()> {
        self.edit(|config| settings::merge_toml(config, text))
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Self) -> glta_core::Result<()>) -> Result<()> {
        let mut edited = self.clone();
        edit(&mut edited)?;
        let (old, new) = (&self.glta, &edited.glta);
        let decided = [
            ("preset", self.preset != edited.preset, "a preset comes before all fields"),
            ("seed", old.seed != new.seed, "each of run.seeds takes its place; set these"),
            ("graph.seed", old.graph.seed != new.graph.seed, "set run.seeds in its place"),
            ("graph.l2", old.graph.l2 != new.graph.l2, "set the list baselines.graph_l2"),
        ];
        if let Some((field, _, problem)) = decided.into_iter().find(|(_, changed, _)| *changed) {
            return Err(Error::Config { field, problem: problem.into() });
        }
        // A share for new items that was computed follows the ratios; one that was set stays.
        let computed = old.linear.new_items == new.linear.new_items
            && old.linear.new_items == self.protocol.new_items();
        if computed {
            edited.glta.linear.new_items = edited.protocol.new_items();
        }
        *self = edited;
        Ok(())
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] and the errors of the parts.
    pub fn validate(&self) -> Result<()> {
        let empty = |field, is_empty: bool| match is_empty {
            false => Ok(()),
            true => Err(Error::Config { field, problem: "at least one value is needed".into() }),
        };
        empty("run.seeds", self.run.seeds.is_empty())?;
        empty("protocol.metrics", self.protocol.metrics.is_empty())?;
        let BaselinesConfig { ease_l2, graph_l2, whitening, powers, text_weights, .. } =
            &self.baselines;
        empty("baselines.ease_l2", ease_l2.is_empty())?;
        empty("baselines.graph_l2", graph_l2.is_empty())?;
        empty("baselines.whitening", whitening.is_empty())?;
        empty("baselines.powers", powers.is_empty())?;
        empty("baselines.text_weights", text_weights.is_empty())?;
        if let Some(l2) = ease_l2.iter().find(|l2| !(**l2 > 0.0 && l2.is_finite())) {
            let problem = format!("{l2} is not a positive number");
            return Err(Error::Config { field: "baselines.ease_l2", problem });
        }
        if let Some(power) = powers.iter().find(|power| **power < 1) {
            let problem = format!("{power} is not at least 1");
            return Err(Error::Config { field: "baselines.powers", problem });
        }
        for &strength in whitening {
            WhitenConfig { strength, ..self.glta.item_text.whiten.clone() }.validate()?;
        }
        if let Some(m) = self.protocol.kept().iter().find(|m| m.k == 0) {
            let problem = format!("{m} has a cut-off of 0");
            return Err(Error::Config { field: "protocol.metrics", problem });
        }
        for (field, ratio) in [
            ("protocol.test_ratio", self.protocol.test_ratio),
            ("protocol.valid_ratio", self.protocol.valid_ratio),
        ] {
            if ratio <= 0.0 {
                let problem = format!("{ratio} leaves nothing to measure or to choose settings on");
                return Err(Error::Config { field, problem });
            }
        }
        self.protocol.split_config(0).validate()?;
        self.protocol.texts.validate()?;
        Ok(self.glta.validate()?)
    }

    /// The first field in which another configuration differs, apart from what is run; rows
    /// of both may stand in one table if there is none.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let tree = |config: &Self| {
            let run = RunConfig::default();
            serde_json::to_value(Self { run, ..config.clone() }).unwrap_or_default()
        };
        difference(&tree(self), &tree(other), "")
    }
}

/// The path of the first value that differs.
fn difference(a: &Value, b: &Value, path: &str) -> Option<String> {
    let (Value::Object(fields), Value::Object(others)) = (a, b) else {
        return (a != b).then(|| path.to_owned());
    };
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let changed = fields.iter().find_map(|(name, value)| {
        difference(value, others.get(name).unwrap_or(&Value::Null), &below(name))
    });
    changed
        .or_else(|| others.keys().find(|name| !fields.contains_key(*name)).map(|name| below(name)))
}
