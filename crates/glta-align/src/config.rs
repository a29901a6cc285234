//! The configuration of a whole run: plain data, validated once, saved with it.

use std::str::FromStr;

use glta_baselines::WhitenConfig;
use glta_gllm::{Decoder, GllmWeights};
use glta_graph::LightGcnConfig;
use glta_llm::LlamaOptions;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, TextVectorConfig};

/// Everything that decides what a run does. `Default` is the preset that
/// measured best; [`Config::preset`] gives the paper's literal reading too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of everything random in stages 2 and 3 and of the texts; graph
    /// pretraining has its own. Default 2024.
    pub seed: u64,
    /// What turns soft tokens into hidden states.
    pub backbone: Backbone,
    /// The language model.
    pub llm: LlamaOptions,
    /// Stage 1, graph pretraining.
    pub graph: LightGcnConfig,
    /// Profiles and predictions that the language model writes.
    pub texts: TextsConfig,
    /// Text vectors of the items.
    pub item_text: ItemTextConfig,
    /// The fixed scores that the head starts from.
    pub kernel: KernelConfig,
    /// What a user's prompt holds and how items are scored.
    pub model: ModelConfig,
    /// Stage 2, item-text alignment.
    pub item_stage: ItemStageConfig,
    /// Stage 3, user-item alignment.
    pub user_stage: UserStageConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 2024,
            backbone: Backbone::Llm,
            llm: LlamaOptions::default(),
            graph: LightGcnConfig::default(),
            texts: TextsConfig::default(),
            item_text: ItemTextConfig::default(),
            kernel: KernelConfig::default(),
            model: ModelConfig::default(),
            item_stage: ItemStageConfig::default(),
            user_stage: UserStageConfig::default(),
        }
    }
}

/// What turns a prompt into hidden states; all but `Llm` are controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Backbone {
    /// The language model with its pretrained weights.
    #[default]
    Llm,
    /// The same architecture with random weights.
    RandomLlm,
    /// None: the head reads the slots' input vectors, scaled to unit root mean
    /// square.
    None,
}

/// Profiles and predictions (thesis, chapter 4): what the language model writes
/// about a user, from descriptions of training items only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextsConfig {
    /// Put the profile into the user prompt; `false` is the paper's "w/o PF".
    pub profile: bool,
    /// Put the prediction into the user prompt; `false` is the paper's "w/o PD".
    pub prediction: bool,
    /// At most this many item descriptions are shown to the writer.
    pub max_items: usize,
    /// Largest share of a user's training items that the writer may see. Under
    /// [`TargetRule::Hidden`] these items are never targets, so that a text
    /// cannot give a target away.
    pub max_share: f64,
    /// The number asked for in the instruction (`{K}`).
    pub words: usize,
    /// A text is cut after this many tokens.
    pub max_tokens: usize,
    /// Share of training steps in which a user's texts are left out, so that
    /// the model also serves people for whom none was written.
    pub dropout: f64,
}

impl Default for TextsConfig {
    fn default() -> Self {
        Self {
            profile: true,
            prediction: true,
            max_items: 5,
            max_share: 0.34,
            words: 5,
            max_tokens: 12,
            dropout: 0.1,
        }
    }
}

/// Text vectors of the items: the mean hidden state of each description in the
/// frozen language model, centred and whitened. They are read once. A run without
/// a language model has none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemTextConfig {
    /// How a description is read.
    pub vectors: TextVectorConfig,
    /// How the vectors are whitened.
    pub whiten: WhitenConfig,
}

/// The kernel: scores of all items from the items a person has, in closed form.
/// It is EASE whose Gram matrix also counts the text vectors, `(XᵀX + αTTᵀ +
/// λI)⁻¹`, plus text neighbours `Σ max(0, cos)³`, plus the log of the degree. Of
/// each list the value that is best on validation data is taken, the middle one
/// where there is no validation data.
///
/// In training the scores are those that a fit without the user would give, so
/// that nothing which scores a hidden pair has seen it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelConfig {
    /// Whether the head starts from it. A dense matrix over all items is needed.
    pub enabled: bool,
    /// λ, the L2 regularisation.
    pub l2: Vec<f64>,
    /// α, the weight of the texts in the Gram matrix; 0 leaves them out.
    pub text: Vec<f64>,
    /// Weights of the text neighbours that are tried beside 0.
    pub neighbours: Vec<f64>,
    /// Weights of `ln(1 + degree)` that are tried beside 0.
    pub popularity: Vec<f64>,
    /// Train the correction on top of the kernel. `false` trains it alone and adds
    /// the kernel afterwards.
    pub in_training: bool,
    /// Factors of the correction that are tried after training; 0 leaves it out.
    pub mix: Vec<f64>,
    /// With more items than this a run goes without a kernel: the matrix takes
    /// `4 · items²` bytes, `16 · items²` while it is fitted.
    pub max_items: usize,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            l2: vec![10.0, 30.0, 100.0, 300.0],
            text: vec![1.0, 3.0, 10.0, 30.0],
            neighbours: vec![0.003, 0.01, 0.03, 0.1, 0.3],
            popularity: vec![0.001, 0.003, 0.01],
            in_training: true,
            mix: vec![0.0, 0.25, 0.5, 1.0, 2.0, 4.0],
            max_items: 20_000,
        }
    }
}

/// What an item's token and the tied head are projected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NodeFeatures {
    /// The graph embedding alone (the paper's).
    Graph,
    /// The text vector alone: on sparse data a graph embedding was fitted on the
    /// very pair that is hidden, a text vector never.
    Text,
    /// Both, side by side: the projector adds their projections.
    GraphText,
}

/// Where the slots that are read stand in the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SlotPlacement {
    /// After the whole prompt.
    Response,
    /// No slots of their own: the last positions of the prompt are read.
    Last,
    /// Before everything that depends on the user, right after the static
    /// instruction (the literal "first positions"); a slot sees no more than
    /// its own input.
    Prefix,
}

/// What the user token is projected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UserNode {
    /// The context items through the frozen graph, `Σ e_i / √deg_i`: hides what
    /// the context hides, and serves users never seen in training.
    Context,
    /// The user's LightGCN embedding, fitted on the very items that are the
    /// targets: with it the task is partly copying, and it overfits.
    Embedding,
}

/// Which of a user's training items are targets in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TargetRule {
    /// A random part is hidden from the prompt, and exactly these are targets.
    Hidden,
    /// Nothing is hidden and everything is a target (the paper's reading).
    All,
}

/// The training objective of a user's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TargetLoss {
    /// Each slot is given one random target (equation 3).
    SampledSlots,
    /// Each slot's softmax is compared with the whole target set.
    Multinomial,
}

/// What a user's prompt holds and how items are scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of slots `n`.
    pub slots: usize,
    /// Where the slots stand.
    pub slot_placement: SlotPlacement,
    /// Add the user token to every slot's input.
    pub slot_user_token: bool,
    /// Put the user's number into the prompt as text instead of the user token:
    /// the paper's "w/o UA".
    pub user_id_text: bool,
    /// Feed the token of the item that a slot names into the next slot, in training
    /// those of the targets: the paper's "AR". A list of `k` items then takes `k`
    /// passes through the language model, and `decoder` is not used.
    pub autoregressive: bool,
    /// What the user token is projected from.
    pub user_node: UserNode,
    /// What item tokens and the tied head are made from. Without text vectors
    /// (no language model) it is the graph embedding.
    pub node_features: NodeFeatures,
    /// Item tokens shown in a user's prompt, at most.
    pub history: usize,
    /// The head's weights.
    pub gllm: GllmWeights,
    /// A learned bias for every item in the head.
    pub item_bias: bool,
    /// Add `α · (e_u · e_i)` to the logits, `α` learned.
    pub graph_residual: bool,
    /// How slots become a list.
    pub decoder: Decoder,
    /// Whether the language model's layers are computed again in the backward
    /// pass instead of keeping their activations.
    pub recompute: Recompute,
    /// Hidden size under [`Backbone::None`] when no language model is given;
    /// with one its hidden size is used, so that both have equally many
    /// parameters.
    pub hidden_without_llm: usize,
}

/// Memory against time in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Recompute {
    /// Only for batches whose activations would take gigabytes.
    #[default]
    Auto,
    /// Always: memory grows by one hidden state per token and layer.
    Always,
    /// Never: about a third faster.
    Never,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            slots: 1,
            slot_placement: SlotPlacement::Response,
            slot_user_token: true,
            user_id_text: false,
            autoregressive: false,
            user_node: UserNode::Context,
            node_features: NodeFeatures::GraphText,
            history: 5,
            gllm: GllmWeights::Tied,
            item_bias: true,
            graph_residual: false,
            decoder: Decoder::FirstLogit,
            recompute: Recompute::Auto,
            hidden_without_llm: 576,
        }
    }
}

/// How the trained tensors of a stage are optimised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the stage's examples, at most.
    pub epochs: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Adam's learning rate after the warm-up.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises from zero.
    pub warmup_steps: usize,
    /// The learning rate falls along a half cosine to this share of itself.
    pub final_ratio: f64,
    /// Gradients are scaled down to this joint norm.
    pub clip_norm: f64,
    /// Decay of the moving average of the trained weights that is evaluated and
    /// kept; 0 is off.
    pub ema: f64,
    /// Epochs between two evaluations on validation data.
    pub eval_every: usize,
    /// Evaluations without a better result after which the stage ends; 0 is
    /// never.
    pub patience: usize,
    /// Steps between two checkpoints; the end of an epoch is always one.
    pub checkpoint_steps: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            learning_rate: 2e-3,
            warmup_steps: 20,
            final_ratio: 0.1,
            clip_norm: 1.0,
            ema: 0.97,
            eval_every: 1,
            patience: 3,
            checkpoint_steps: 50,
        }
    }
}

/// Stage 2, item-text alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemStageConfig {
    /// `false` skips the stage; the item projector is then trained in stage 3
    /// together with the user projector (the paper's "w/o IA").
    pub enabled: bool,
    /// Items shown in one prompt.
    pub items: usize,
    /// A description is cut after this many tokens.
    pub max_tokens: usize,
    /// Optimisation.
    pub train: TrainConfig,
}

impl Default for ItemStageConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            items: 4,
            max_tokens: 12,
            train: TrainConfig {
                epochs: 4,
                batch_size: 16,
                learning_rate: 1e-3,
                ..TrainConfig::default()
            },
        }
    }
}

/// Stage 3, user-item alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserStageConfig {
    /// Which items are targets.
    pub targets: TargetRule,
    /// Smallest share of a user's training items that is hidden in a step.
    pub hide_min: f64,
    /// Largest share of a user's training items that is hidden in a step.
    pub hide_max: f64,
    /// The objective.
    pub loss: TargetLoss,
    /// Leave the context items out of the training softmax, as they are left
    /// out of a recommendation.
    pub mask_context: bool,
    /// Optimisation.
    pub train: TrainConfig,
}

impl Default for UserStageConfig {
    fn default() -> Self {
        Self {
            targets: TargetRule::Hidden,
            hide_min: 0.2,
            hide_max: 0.9,
            loss: TargetLoss::Multinomial,
            mask_context: false,
            train: TrainConfig::default(),
        }
    }
}

/// A named configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// What measured best.
    #[default]
    Default,
    /// The most literal reading of the paper that can work: all training items
    /// shown and all of them targets, the trained user embedding, slots fed
    /// placeholders alone, free head, one random target per slot, no averaging.
    Paper,
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "default" => Ok(Self::Default),
            "paper" => Ok(Self::Paper),
            _ => Err(Error::ConfigText(format!(
                "preset \"{name}\" does not exist; there are: default, paper"
            ))),
        }
    }
}

impl Config {
    /// The configuration of a preset.
    pub fn preset(preset: Preset) -> Self {
        let mut config = Self::default();
        if preset == Preset::Paper {
            config.texts.max_share = 1.0;
            config.texts.dropout = 0.0;
            config.model = ModelConfig {
                slots: 10,
                slot_user_token: false,
                user_node: UserNode::Embedding,
                node_features: NodeFeatures::Graph,
                history: 10,
                gllm: GllmWeights::Free,
                item_bias: true,
                graph_residual: false,
                decoder: Decoder::Parallel,
                ..config.model
            };
            config.kernel.enabled = false;
            config.user_stage.targets = TargetRule::All;
            config.user_stage.loss = TargetLoss::SampledSlots;
            config.user_stage.train.ema = 0.0;
            config.item_stage.train.ema = 0.0;
        }
        config
    }

    /// Whether anything uses the items' text vectors.
    pub fn reads_item_texts(&self) -> bool {
        self.kernel.enabled || self.model.node_features != NodeFeatures::Graph
    }

    /// Sets one field by its path, such as `user_stage.train.epochs=3`. The value
    /// is read as TOML, or as a string where that fails.
    ///
    /// # Errors
    /// A path that does not exist (with the names that are near), or a value of
    /// the wrong type.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let Some((path, value)) = assignment.split_once('=') else {
            return Err(Error::ConfigText(format!("`{assignment}` is not of the form path=value")));
        };
        let (path, value) = (path.trim(), value.trim());
        let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        // Optional fields are absent from the serialised form; name them here.
        const OPTIONAL: &[&str] = &["llm.layers"];
        let mut tree =
            toml::Value::try_from(&*self).map_err(|e| Error::ConfigText(e.to_string()))?;
        let mut node = &mut tree;
        let parts: Vec<&str> = path.split('.').collect();
        for (depth, part) in parts.iter().enumerate() {
            let here = parts[..depth].join(".");
            let Some(table) = node.as_table_mut() else {
                return Err(Error::ConfigText(format!("`{here}` is a value and has no fields")));
            };
            let last = depth + 1 == parts.len();
            let optional = last && OPTIONAL.contains(&path);
            if !table.contains_key(*part) && !optional {
                let known: Vec<&str> = table
                    .keys()
                    .map(String::as_str)
                    .chain(OPTIONAL.iter().filter_map(|o| o.strip_prefix(&format!("{here}."))))
                    .collect();
                return Err(Error::ConfigText(unknown_field(path, part, &known)));
            }
            if last {
                if table.get(*part).is_some_and(toml::Value::is_table) {
                    return Err(Error::ConfigText(format!("`{path}` has fields; set one of them")));
                }
                table.insert((*part).to_owned(), value.clone());
                break;
            }
            node = &mut table[*part];
        }
        *self = tree
            .try_into()
            .map_err(|e: toml::de::Error| Error::ConfigText(format!("{path}: {}", e.message())))?;
        Ok(())
    }

    /// Reads a configuration in TOML over `self`: fields that are not named keep
    /// their value.
    ///
    /// # Errors
    /// Unknown fields, values of the wrong type.
    pub fn merge_toml(&mut self, text: &str) -> Result<()> {
        let table: toml::Table =
            toml::from_str(text).map_err(|e| Error::ConfigText(e.to_string()))?;
        let mut leaves = Vec::new();
        flatten("", &toml::Value::Table(table), &mut leaves);
        let mut merged = self.clone();
        for leaf in leaves {
            merged.set(&leaf)?;
        }
        *self = merged;
        Ok(())
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::ConfigText(e.to_string()))
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// Unknown fields, values of the wrong type or that cannot work.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| Error::ConfigText(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every field and what must hold between them.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that cannot work.
    pub fn validate(&self) -> Result<()> {
        self.graph.validate()?;
        let model = &self.model;
        positive("model.slots", model.slots)?;
        positive("model.hidden_without_llm", model.hidden_without_llm)?;
        share("texts.max_share", self.texts.max_share, 0.0, 1.0)?;
        share("texts.dropout", self.texts.dropout, 0.0, 1.0)?;
        self.kernel.validate()?;
        self.item_text.whiten.validate()?;
        positive("item_text.vectors.max_tokens", self.item_text.vectors.max_tokens)?;
        positive("texts.max_items", self.texts.max_items)?;
        positive("texts.words", self.texts.words)?;
        positive("texts.max_tokens", self.texts.max_tokens)?;
        share("user_stage.hide_min", self.user_stage.hide_min, 0.0, 1.0)?;
        share("user_stage.hide_max", self.user_stage.hide_max, self.user_stage.hide_min, 1.0)?;
        if self.user_stage.targets == TargetRule::Hidden && self.user_stage.hide_max == 0.0 {
            return Err(wrong("user_stage.hide_max", "0 hides nothing, so there are no targets"));
        }
        if self.user_stage.targets == TargetRule::All && self.user_stage.mask_context {
            return Err(wrong(
                "user_stage.mask_context",
                "with targets = \"all\" every context item is a target and cannot be masked",
            ));
        }
        if model.slot_placement == SlotPlacement::Prefix {
            if !model.slot_user_token {
                return Err(wrong(
                    "model.slot_placement",
                    "\"prefix\" without slot_user_token: under a causal mask every user would get the same logits",
                ));
            }
            if self.item_stage.enabled {
                return Err(wrong(
                    "model.slot_placement",
                    "\"prefix\" slots cannot see the item tokens: switch item_stage.enabled off",
                ));
            }
        }
        if model.user_id_text && model.slot_user_token {
            return Err(wrong(
                "model.user_id_text",
                "with slot_user_token the user token would still be there: switch that off",
            ));
        }
        if model.autoregressive {
            if self.user_stage.loss != TargetLoss::SampledSlots {
                return Err(wrong(
                    "model.autoregressive",
                    "each slot needs a target of its own: set user_stage.loss = \"sampled-slots\"",
                ));
            }
            if model.slot_placement != SlotPlacement::Response || self.backbone == Backbone::None {
                return Err(wrong(
                    "model.autoregressive",
                    "slots must see those before them: it needs a language model and slot_placement = \"response\"",
                ));
            }
        }
        if self.backbone == Backbone::None && !model.slot_user_token {
            return Err(wrong(
                "model.slot_user_token",
                "without a language model only the slot's input can carry the user: it must be on",
            ));
        }
        self.user_stage.train.validate()?;
        self.item_stage.train.validate()?;
        if self.item_stage.enabled && self.item_stage.items < 2 {
            return Err(wrong("item_stage.items", "at least 2 items are needed to have an order"));
        }
        positive("item_stage.max_tokens", self.item_stage.max_tokens)
    }
}

impl KernelConfig {
    fn validate(&self) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        for (field, list, least) in [
            ("kernel.l2", &self.l2, f64::MIN_POSITIVE),
            ("kernel.text", &self.text, 0.0),
            ("kernel.mix", &self.mix, 0.0),
        ] {
            if list.is_empty() {
                return Err(wrong(field, "at least one value is needed"));
            }
            list.iter().try_for_each(|&value| share(field, value, least, 1e12))?;
        }
        for (field, list) in
            [("kernel.neighbours", &self.neighbours), ("kernel.popularity", &self.popularity)]
        {
            list.iter().try_for_each(|&value| share(field, value, 0.0, 1e12))?;
        }
        Ok(())
    }
}

impl TrainConfig {
    fn validate(&self) -> Result<()> {
        positive("train.batch_size", self.batch_size)?;
        positive("train.eval_every", self.eval_every)?;
        positive("train.checkpoint_steps", self.checkpoint_steps)?;
        share("train.ema", self.ema, 0.0, 0.999_999)?;
        share("train.final_ratio", self.final_ratio, 0.0, 1.0)?;
        share("train.learning_rate", self.learning_rate, 1e-12, 1e3)?;
        share("train.clip_norm", self.clip_norm, 1e-12, 1e12)
    }
}

fn wrong(field: &'static str, problem: impl Into<String>) -> Error {
    Error::Config { field, problem: problem.into() }
}

fn positive(field: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(wrong(field, "0 is not possible, give at least 1"));
    }
    Ok(())
}

fn share(field: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if !(low..=high).contains(&value) {
        return Err(wrong(field, format!("{value} is not in {low}..={high}")));
    }
    Ok(())
}

fn flatten(path: &str, value: &toml::Value, leaves: &mut Vec<String>) {
    match value.as_table() {
        // A table with one key may be an enum with data; its path does not exist
        // as fields, so it is set as a whole where `set` finds a value.
        Some(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, leaves);
            }
        }
        None => leaves.push(format!("{path}={value}")),
    }
}

fn unknown_field(path: &str, part: &str, known: &[&str]) -> String {
    let mut near: Vec<(usize, &str)> = known.iter().map(|k| (distance(part, k), *k)).collect();
    near.sort();
    let near: Vec<&str> = near.iter().take(3).map(|(_, k)| *k).collect();
    format!("`{path}` does not exist: no field `{part}`; near names: {}", near.join(", "))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_survive_toml() {
        for preset in [Preset::Default, Preset::Paper] {
            let config = Config::preset(preset);
            config.validate().unwrap();
            assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        }
    }

    #[test]
    fn fields_are_set_by_path() {
        let mut config = Config::default();
        config.set("user_stage.train.epochs=3").unwrap();
        config.set("model.gllm = free").unwrap();
        config.set("llm.layers=4").unwrap();
        config.set("llm.precision=bf16").unwrap();
        config.set("user_stage.train.learning_rate=1").unwrap();
        assert_eq!(config.user_stage.train.epochs, 3);
        assert_eq!(config.model.gllm, GllmWeights::Free);
        assert_eq!(config.llm.layers, Some(4));
        assert_eq!(config.llm.precision, glta_llm::Precision::Bf16);
        assert_eq!(config.user_stage.train.learning_rate, 1.0);

        let message = config.set("user_stage.trian.epochs=3").unwrap_err().to_string();
        assert!(message.contains("trian") && message.contains("train"), "{message}");
        let message = config.set("model.slots=many").unwrap_err().to_string();
        assert!(message.contains("model.slots"), "{message}");
        assert!(config.set("model=3").is_err());
        assert!(config.set("model.slots.x=3").is_err());
        assert!(config.set("model.slots").is_err());
    }

    #[test]
    fn a_file_changes_only_what_it_names() {
        let mut config = Config::preset(Preset::Paper);
        config.merge_toml("[model]\nslots = 7\n[llm]\nlayers = 2").unwrap();
        assert_eq!(config.model.slots, 7);
        assert_eq!(config.llm.layers, Some(2));
        assert_eq!(config.model.gllm, GllmWeights::Free);
        let before = config.clone();
        let message = config.merge_toml("[model]\nslots = 8\nslotz = 7").unwrap_err().to_string();
        assert!(message.contains("slotz"), "{message}");
        assert_eq!(config, before);
    }

    #[test]
    fn impossible_combinations_are_refused() {
        let refused = |assignments: &[&str]| {
            let mut config = Config::default();
            for a in assignments {
                config.set(a).unwrap();
            }
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(&["model.slots=0"]).contains("model.slots"));
        assert!(refused(&["user_stage.hide_max=0.1"]).contains("hide_max"));
        assert!(
            refused(&["model.slot_placement=prefix", "model.slot_user_token=false"])
                .contains("same logits")
        );
        assert!(refused(&["backbone=none", "model.slot_user_token=false"]).contains("carry"));
        assert!(refused(&["model.user_id_text=true"]).contains("slot_user_token"));
        assert!(refused(&["model.autoregressive=true"]).contains("sampled-slots"));
        assert!(
            refused(&[
                "model.autoregressive=true",
                "user_stage.loss=sampled-slots",
                "model.slot_placement=last"
            ])
            .contains("slots must see")
        );
        assert!(refused(&["kernel.l2=[]"]).contains("kernel.l2"));
        assert!(refused(&["kernel.text=[-1.0]"]).contains("kernel.text"));
        assert!(refused(&["user_stage.train.ema=1.0"]).contains("ema"));
    }
}
