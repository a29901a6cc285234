//! The configuration of a run: plain data that is validated once and saved with the run.

mod edit;
mod preset;
mod validate;

use std::path::PathBuf;

use glta_gllm::{Decoder, GllmWeights};
use glta_graph::LightGcnConfig;
use glta_linear::{LinearConfig, TfIdfConfig, WhitenConfig};
use glta_llm::LlamaOptions;
use serde::{Deserialize, Serialize};

use crate::{ItemEncoder, TextVectorConfig};

pub use preset::{Density, Preset};

/// The complete configuration of a run. `Default` is the preset [`Default`](Preset::Default) for
/// sparse data, the linear model alone. [`Config::preset`] has the whole method and the paper's
/// forms.
///
/// ```
/// use glta_align::{Config, Density, Preset};
///
/// let mut config = Config::preset(Preset::Full, Density::Sparse);
/// config.set("user_stage.train.epochs=3")?;
/// assert_eq!(config.user_stage.train.epochs, 3);
/// assert!(config.set("user_stage.train.epoch=3").unwrap_err().to_string().contains("epochs"));
/// # Ok::<(), glta_align::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of the random choices in stages 2 and 3 and of the texts; graph pretraining has its
    /// own. Default 2024.
    pub seed: u64,
    /// The model that computes hidden states from prompts.
    pub backbone: Backbone,
    /// The language model.
    pub llm: LlamaOptions,
    /// Stage 1, graph pretraining.
    pub graph: LightGcnConfig,
    /// Profiles and predictions that the language model writes.
    pub texts: TextsConfig,
    /// Text vectors of the items.
    pub item_text: ItemTextConfig,
    /// The linear model, whose scores the head starts from.
    pub linear: LinearConfig,
    /// The content of a user's prompt, and how items are scored.
    pub model: ModelConfig,
    /// Stage 2, item-text alignment.
    pub item_stage: ItemStageConfig,
    /// Stage 3, user-item alignment.
    pub user_stage: UserStageConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self::preset(Preset::Default, Density::Sparse)
    }
}

/// The model that computes hidden states from a prompt; all except `Llm` are controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Backbone {
    /// The language model with its pretrained weights.
    #[default]
    Llm,
    /// The same architecture with random weights.
    RandomLlm,
    /// No model: the head reads the input vectors of the slots, scaled to unit root mean square.
    None,
}

/// Profiles and predictions (thesis, chapter 4): texts about a user that the language model writes
/// from descriptions of training items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextsConfig {
    /// Whether the prompt contains the profile; `false` is the paper's "w/o PF".
    pub profile: bool,
    /// Whether the prompt contains the prediction; `false` is the paper's "w/o PD".
    pub prediction: bool,
    /// Maximum number of item descriptions for the writer.
    pub max_items: usize,
    /// Maximum share of a user's training items for the writer. With [`TargetRule::Hidden`] these
    /// items are never targets, so a text cannot reveal a target.
    pub max_share: f64,
    /// Number of words in the instruction (`{K}`).
    pub words: usize,
    /// Maximum number of generated tokens.
    pub max_tokens: usize,
    /// Share of training steps without a user's texts, so that the model also serves users without
    /// texts.
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

/// Text vectors of the items. The vectors of each encoder are whitened separately and concatenated.
/// They are computed once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemTextConfig {
    /// The encoders. With [`Backbone::None`] the language model is left out; with
    /// [`Backbone::RandomLlm`] it has random weights.
    pub encoders: Vec<ItemEncoder>,
    /// Files of vectors by raw id, each a further encoder; see
    /// [`ItemVectors::file`](crate::ItemVectors::file).
    pub files: Vec<PathBuf>,
    /// How the language model encodes a description.
    pub language_model: TextVectorConfig,
    /// How TF-IDF encodes descriptions.
    pub tf_idf: TfIdfConfig,
    /// How the vectors of an encoder are whitened.
    pub whiten: WhitenConfig,
}

impl Default for ItemTextConfig {
    fn default() -> Self {
        Self {
            encoders: vec![ItemEncoder::LanguageModel, ItemEncoder::TfIdf],
            files: Vec::new(),
            language_model: TextVectorConfig::default(),
            tf_idf: TfIdfConfig::default(),
            whiten: WhitenConfig::default(),
        }
    }
}

/// The features from which item tokens and the tied head are projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeFeatures {
    /// The graph embedding (the paper's).
    Graph,
    /// The text vector. On sparse data a graph embedding was fitted on the hidden pair itself, a
    /// text vector was not.
    Text,
    /// Both, concatenated: the projector adds their projections.
    GraphText,
}

/// The position of the slots in the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotPlacement {
    /// After the whole prompt.
    Response,
    /// No separate slots: the last positions of the prompt are read.
    Last,
    /// Before everything that depends on the user, directly after the static instruction (the
    /// literal "first positions"). A slot sees only its own input.
    Prefix,
}

/// The node from which the user token is projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserNode {
    /// The context items through the frozen graph, `Σ e_i / √deg_i`. It contains only the context,
    /// and also serves users who are not in the training data.
    Context,
    /// The user's LightGCN embedding, which was fitted on the targets themselves. The task is then
    /// partly copying, and the model overfits.
    Embedding,
}

/// Which of a user's training items are targets in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetRule {
    /// A random part is hidden from the prompt, and exactly this part is the targets.
    Hidden,
    /// Nothing is hidden, and all items are targets (the paper's reading).
    All,
}

/// The training objective of a user's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetLoss {
    /// Each slot has one random target (equation 3).
    SampledSlots,
    /// The softmax of each slot is compared with the whole set of targets.
    Multinomial,
}

/// The content of a user's prompt, and how items are scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of slots `n`.
    pub slots: usize,
    /// The position of the slots.
    pub slot_placement: SlotPlacement,
    /// Adds the user token to every slot's input.
    pub slot_user_token: bool,
    /// Puts the user's number as text into the prompt instead of the user token: the paper's "w/o
    /// UA".
    pub user_id_text: bool,
    /// Feeds the token of the item that a slot names into the next slot, in training the tokens of
    /// the targets: the paper's "AR". The language model then processes a token for every item of a
    /// list, one after the other, and `decoder` is not used.
    pub autoregressive: bool,
    /// The node from which the user token is projected.
    pub user_node: UserNode,
    /// The features of item tokens and of the tied head. Without text vectors (no language model)
    /// these are graph embeddings.
    pub node_features: NodeFeatures,
    /// Maximum number of item tokens in a user's prompt.
    pub history: usize,
    /// The head's weights.
    pub gllm: GllmWeights,
    /// Whether the head has a learned bias per item.
    pub item_bias: bool,
    /// Whether there is a prompt path: graph pretraining, the two alignment stages and the head.
    /// `false` is the linear model alone, which must then be enabled; the other fields of this
    /// section are not used.
    pub prompt: bool,
    /// Whether the logits are those of the [linear model](Config::linear), and the prompt path adds
    /// a correction to them.
    pub linear: bool,
    /// Factors of the correction. After training, the one that is best on validation data is
    /// chosen, or 1 without validation data; 0 leaves the correction out.
    pub mix: Vec<f64>,
    /// Adds `α · (e_u · e_i)` to the logits, with a learned `α`.
    pub graph_residual: bool,
    /// How the logits of the slots become a list.
    pub decoder: Decoder,
    /// Whether the backward pass computes the layers of the language model again instead of keeping
    /// their activations.
    pub recompute: Recompute,
    /// Hidden size for [`Backbone::None`] without a language model. With a language model its
    /// hidden size is used, so that both have equal numbers of parameters.
    pub hidden_without_llm: usize,
}

/// Memory against time in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recompute {
    /// Only for batches whose activations would need gigabytes; on a GPU, half of its free memory.
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
            prompt: true,
            linear: true,
            mix: vec![0.0, 0.25, 0.5, 1.0, 2.0, 4.0],
            graph_residual: false,
            decoder: Decoder::FirstLogit,
            recompute: Recompute::Auto,
            hidden_without_llm: 576,
        }
    }
}

/// How the parameters of a stage are optimised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Maximum number of passes over the stage's examples.
    pub epochs: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Adam's learning rate after the warm-up.
    pub learning_rate: f64,
    /// Number of steps over which the learning rate rises from zero.
    pub warmup_steps: usize,
    /// Share of the learning rate to which it falls along a half cosine.
    pub final_ratio: f64,
    /// Maximum norm of all gradients together.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights, which is evaluated and saved; 0 disables it.
    pub ema: f64,
    /// Number of epochs between two evaluations on validation data.
    pub eval_every: usize,
    /// Number of evaluations without a better result after which the stage ends; 0 for never.
    pub patience: usize,
    /// Number of steps between two checkpoints; the end of an epoch is always one.
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

/// The position of the slots in stage 2, and the items that they must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemSlots {
    /// After the prompt. Slot `t` names the item of the `t`-th item token, which it has to find by
    /// its position (the paper's).
    Place,
    /// The same, but the slot's input also contains this token.
    Token,
    /// One slot behind each description, whose item it names. The item tokens come first. Only the
    /// descriptions distinguish the items.
    Description,
}

/// Stage 2, item-text alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemStageConfig {
    /// `false` skips the stage. The item projector is then trained in stage 3 together with the
    /// user projector (the paper's "w/o IA").
    pub enabled: bool,
    /// Number of items in a prompt.
    pub items: usize,
    /// The position of the slots, and the items that they must name.
    pub slots: ItemSlots,
    /// Maximum number of tokens of a description.
    pub max_tokens: usize,
    /// Optimisation.
    pub train: TrainConfig,
}

impl Default for ItemStageConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            items: 4,
            slots: ItemSlots::Token,
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
    /// Which of a user's items are targets.
    pub targets: TargetRule,
    /// Minimum share of a user's training items that is hidden in a step.
    pub hide_min: f64,
    /// Maximum share of a user's training items that is hidden in a step.
    pub hide_max: f64,
    /// The objective.
    pub loss: TargetLoss,
    /// Whether the correction is trained on top of the linear model, with logits of a fit without
    /// the user, which has not seen a hidden pair. `false` trains the correction alone and adds the
    /// linear model afterwards.
    pub on_linear: bool,
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
            on_linear: true,
            train: TrainConfig::default(),
        }
    }
}

impl Config {
    /// The encoders of the item texts, without files.
    pub fn item_encoders(&self) -> impl Iterator<Item = ItemEncoder> + '_ {
        let language = self.backbone != Backbone::None;
        let encoders = self.item_text.encoders.iter().copied();
        encoders.filter(move |&encoder| language || encoder != ItemEncoder::LanguageModel)
    }

    /// Whether the language model encodes the item texts.
    pub fn language_model_reads_items(&self) -> bool {
        self.reads_item_texts() && self.item_encoders().any(|e| e == ItemEncoder::LanguageModel)
    }

    /// Whether text vectors of the items are used.
    pub fn reads_item_texts(&self) -> bool {
        self.model.linear || self.model.node_features != NodeFeatures::Graph
    }
}
