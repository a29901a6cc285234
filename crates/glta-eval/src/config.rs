//! The configuration of an experiment, saved with its record.

use glta_align::{Config, Density, Preset};
use glta_core::settings;
use glta_data::{SplitConfig, SplitMethod, TextConfig};
use glta_linear::WhitenConfig;
use glta_metrics::Metric;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::llm_path::LlmPathConfig;
use crate::{Error, MetricAt, Result};

/// The complete configuration of an experiment. In a file, the fields of [`glta`](Self::glta) are
/// at the top level, next to the sections `run`, `protocol`, `baselines` and `llm_path`.
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
    /// The preset of `glta`, which determines the name of the main row and the row that the
    /// ablations change.
    pub preset: Preset,
    /// The seeds and systems to run.
    pub run: RunConfig,
    /// The protocol: split, texts and metrics.
    pub protocol: ProtocolConfig,
    /// The values that the search over the settings of the baselines tries.
    pub baselines: BaselinesConfig,
    /// Settings of the rows of `run.llm_path`.
    #[serde(default)]
    pub llm_path: LlmPathConfig,
    /// The configuration of the main row.
    #[serde(flatten)]
    pub glta: Config,
}

/// The seeds and systems to run. They may change when an experiment is resumed; finished rows are
/// kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Seeds of the split and of all training. They run one after the other. Default 2024.
    pub seeds: Vec<u64>,
    /// Names of the systems to run. Default empty: all enabled systems run.
    pub only: Vec<String>,
    /// Whether to run the controls of the main row: the linear model alone, the main row without a
    /// language model, and the main row with a language model that has random weights. Default
    /// `false`.
    pub controls: bool,
    /// Whether to run the contrastive graph models and AlphaRec. Default `false`.
    pub contrastive: bool,
    /// Whether to run the paper's ablations and decoders. Default `false`.
    pub ablations: bool,
    /// Whether to run the linear model with scores of the language model added, and its controls.
    /// Default `false`.
    pub llm_path: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seeds: vec![2024],
            only: Vec::new(),
            controls: false,
            contrastive: false,
            ablations: false,
            llm_path: false,
        }
    }
}

/// The protocol of the measurements: split, texts and metrics. Validation N@10 selects all
/// settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtocolConfig {
    /// The rule that selects the test and validation items. Default a random choice per user.
    pub split: SplitMethod,
    /// Share of the interactions of a user in the test part. Default 0.2.
    pub test_ratio: f64,
    /// Share of the remaining interactions in the validation part. Default 0.1.
    pub valid_ratio: f64,
    /// Share of items that become cold. Default 0.
    pub cold_ratio: f64,
    /// Settings of the text that is made from the fields of an item.
    pub texts: TextConfig,
    /// Metrics in the columns of the table. Default P@5, P@10, N@5, N@10, R@20, N@20.
    pub metrics: Vec<MetricAt>,
    /// Metrics of the paired tests. Default N@10 and N@20.
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
    /// Returns the settings of the split for a seed.
    pub fn split_config(&self, seed: u64) -> SplitConfig {
        SplitConfig {
            method: self.split,
            test_ratio: self.test_ratio,
            valid_ratio: self.valid_ratio,
            cold_ratio: self.cold_ratio,
            seed,
        }
    }

    /// Returns the share of items to treat as new while settings are chosen. With this share, the
    /// proportion of new items among the validation items equals the proportion of cold items among
    /// the test items.
    fn new_items(&self) -> f64 {
        // `Split` rejects a ratio outside `0..1`.
        let ratio = if (0.0..1.0).contains(&self.cold_ratio) { self.cold_ratio } else { 0.0 };
        let parts = match self.split {
            SplitMethod::LeaveOneOut => 1.0,
            _ => self.valid_ratio / self.test_ratio,
        };
        let odds = ratio / (1.0 - ratio) * parts;
        if odds.is_finite() { odds / (1.0 + odds) } else { 0.0 }
    }

    /// Returns the metrics that are stored for every user: those of the table and of the paired
    /// tests.
    pub(crate) fn kept(&self) -> Vec<MetricAt> {
        let mut kept = self.metrics.clone();
        kept.extend(self.compare.iter().filter(|m| !self.metrics.contains(m)));
        kept
    }

    /// Returns the cut-offs of an evaluation: those of the metrics, 10 to choose settings, and 20
    /// for buckets.
    pub(crate) fn ks(&self) -> Vec<usize> {
        self.kept().iter().map(|m| m.k).chain([10, 20]).collect()
    }
}

/// Values that the search over the settings of the baselines tries on validation data. The defaults
/// of the fields are those for sparse data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaselinesConfig {
    /// L2 weights of EASE. Default 10, 30, 100, 200, 400.
    pub ease_l2: Vec<f64>,
    /// L2 weights of LightGCN and of the contrastive models that train embeddings. Default 1e-4,
    /// 1e-3, 1e-2, 1e-1.
    pub graph_l2: Vec<f32>,
    /// Temperatures of AlphaRec. Default 0.1, 0.15, 0.2, 0.3.
    pub temperatures: Vec<f64>,
    /// Whitening strengths of the text vectors of text-kNN. Default 0.5 and 1.
    pub whitening: Vec<f64>,
    /// Powers of the cosine in text-kNN. Default 1 and 3.
    pub powers: Vec<i32>,
    /// Weights of text-kNN in EASE + text. Default 0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.
    pub text_weights: Vec<f32>,
    /// Number of epochs of the contrastive models. `None` (the default) uses the default of each
    /// model.
    pub contrastive_epochs: Option<usize>,
}

impl Default for BaselinesConfig {
    fn default() -> Self {
        Self {
            ease_l2: vec![10.0, 30.0, 100.0, 200.0, 400.0],
            graph_l2: vec![1e-4, 1e-3, 1e-2, 1e-1],
            temperatures: vec![0.1, 0.15, 0.2, 0.3],
            whitening: vec![0.5, 1.0],
            powers: vec![1, 3],
            text_weights: vec![0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
            contrastive_epochs: None,
        }
    }
}

impl BaselinesConfig {
    /// Returns the default values for dense or sparse data. For dense data, the L2 weights are
    /// larger for EASE and smaller for LightGCN.
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
    /// Returns the configuration of a preset for dense or sparse data.
    pub fn new(preset: Preset, density: Density) -> Self {
        Self {
            preset,
            run: RunConfig::default(),
            protocol: ProtocolConfig::default(),
            baselines: BaselinesConfig::new(density),
            llm_path: LlmPathConfig::default(),
            glta: Config::preset(preset, density),
        }
    }

    /// Makes the share `ratio` of the items cold, and sets `linear.new_items` so that the settings
    /// of text-based models are chosen for cold items: while settings are chosen, the proportion of
    /// new items among the validation items equals the proportion of cold items among the test
    /// items, except for rounding.
    pub fn hold_out_items(&mut self, ratio: f64) {
        self.protocol.cold_ratio = ratio;
        self.glta.linear.new_items = self.protocol.new_items();
    }

    /// Sets one field by `path=value`, such as `graph.epochs=10`.
    ///
    /// # Errors
    /// Returns an error if the field is unknown (the message lists similar names), if the value is
    /// invalid, or if another field determines this one: the preset, `seed` and `graph.seed`
    /// (`run.seeds`), `graph.l2` (`baselines.graph_l2`).
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        self.edit(|config| settings::set(config, assignment))
    }

    /// Sets all fields that a TOML text contains.
    ///
    /// # Errors
    /// Returns the errors of [`set`](Self::set), and an error for a text that is not TOML.
    pub fn merge_toml(&mut self, text: &str) -> Result<()> {
        self.edit(|config| settings::merge_toml(config, text))
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Self) -> glta_core::Result<()>) -> Result<()> {
        let mut edited = self.clone();
        edit(&mut edited)?;
        let (old, new) = (&self.glta, &edited.glta);
        let decided = [
            ("preset", self.preset != edited.preset, "the preset must be set before all fields"),
            ("seed", old.seed != new.seed, "it is set from run.seeds; set run.seeds"),
            ("graph.seed", old.graph.seed != new.graph.seed, "set run.seeds instead"),
            ("graph.l2", old.graph.l2 != new.graph.l2, "set the list baselines.graph_l2 instead"),
        ];
        if let Some((field, _, problem)) = decided.into_iter().find(|(_, changed, _)| *changed) {
            return Err(Error::Config { field, problem: problem.into() });
        }
        // Update the share of new items with the ratios, unless the caller has set it.
        let computed = old.linear.new_items == new.linear.new_items
            && old.linear.new_items == self.protocol.new_items();
        if computed {
            edited.glta.linear.new_items = edited.protocol.new_items();
        }
        *self = edited;
        Ok(())
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] or the error of a part for an invalid value.
    pub fn validate(&self) -> Result<()> {
        let empty = |field, is_empty: bool| {
            if is_empty {
                Err(Error::Config { field, problem: "at least one value is needed".into() })
            } else {
                Ok(())
            }
        };
        empty("run.seeds", self.run.seeds.is_empty())?;
        empty("protocol.metrics", self.protocol.metrics.is_empty())?;
        let BaselinesConfig {
            ease_l2,
            graph_l2,
            temperatures,
            whitening,
            powers,
            text_weights,
            contrastive_epochs: _,
        } = &self.baselines;
        empty("baselines.ease_l2", ease_l2.is_empty())?;
        empty("baselines.graph_l2", graph_l2.is_empty())?;
        empty("baselines.temperatures", temperatures.is_empty())?;
        empty("baselines.whitening", whitening.is_empty())?;
        empty("baselines.powers", powers.is_empty())?;
        empty("baselines.text_weights", text_weights.is_empty())?;
        for (field, values) in
            [("baselines.ease_l2", ease_l2), ("baselines.temperatures", temperatures)]
        {
            if let Some(value) = values.iter().find(|v| !(**v > 0.0 && v.is_finite())) {
                let problem = format!("{value} is not a positive number");
                return Err(Error::Config { field, problem });
            }
        }
        if let Some(power) = powers.iter().find(|power| **power < 1) {
            let problem = format!("{power} is below 1");
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
                let problem = format!("with {ratio} no test or validation items would remain");
                return Err(Error::Config { field, problem });
            }
        }
        self.llm_path.validate()?;
        self.protocol.split_config(0).validate()?;
        self.protocol.texts.validate()?;
        Ok(self.glta.validate()?)
    }

    /// Returns the path of the first field that differs from `other`, except in the section `run`.
    /// Returns `None` if there is no such field; the same table can then contain rows of both
    /// configurations.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let tree = |config: &Self| {
            let run = RunConfig::default();
            serde_json::to_value(Self { run, ..config.clone() }).unwrap_or_default()
        };
        difference(&tree(self), &tree(other), "")
    }
}

/// Returns the path of the first value that differs between `a` and `b`; `None` if all are equal.
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
