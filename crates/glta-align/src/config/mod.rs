//! The configuration of a whole run: plain data, validated once, saved with it.

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

/// Everything that decides what a run does. `Default` is the preset
/// [`Default`](Preset::Default) for sparse data: the linear item model alone.
/// [`Config::preset`] gives the whole method and the paper's forms.
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
    /// The linear item model, whose scores the head starts from.
    pub linear: LinearConfig,
    /// What a user's prompt holds and how items are scored.
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

/// What turns a prompt into hidden states; all but `Llm` are controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Text vectors of the items: those of each encoder, whitened by themselves and put side by
/// side. They are read once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemTextConfig {
    /// The encoders. Under [`Backbone::None`] the language model is left out, under
    /// [`Backbone::RandomLlm`] it has random weights.
    pub encoders: Vec<ItemEncoder>,
    /// Files of vectors by raw id, each an encoder too; see
    /// [`ItemVectors::file`](crate::ItemVectors::file).
    pub files: Vec<PathBuf>,
    /// How the language model reads a description.
    pub language_model: TextVectorConfig,
    /// How TF-IDF reads descriptions.
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

/// What an item's token and the tied head are projected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[serde(rename_all = "snake_case")]
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
#[serde(rename_all = "snake_case")]
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
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetRule {
    /// A random part is hidden from the prompt, and exactly these are targets.
    Hidden,
    /// Nothing is hidden and everything is a target (the paper's reading).
    All,
}

/// The training objective of a user's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// those of the targets: the paper's "AR". The language model then reads a token for
    /// every item of a list, one after the other, and `decoder` is not used.
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
    /// Whether there is a path through a prompt: graph pretraining, the two alignment
    /// stages and the head. `false` is the linear item model alone, which then must be
    /// on; the other fields of this section are not used.
    pub prompt: bool,
    /// Whether the logits are those of the [linear item model](Config::linear) and the
    /// language model's path adds a correction to them.
    pub linear: bool,
    /// Factors of the correction beside the linear item model. After training, the one
    /// that is best on validation data is taken, 1 without any; 0 leaves it out.
    pub mix: Vec<f64>,
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
#[serde(rename_all = "snake_case")]
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

/// Where the slots of stage 2 are, and what they must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemSlots {
    /// After the prompt: slot `t` names the item of the `t`-th item token, which it has
    /// to find by its place among them (the paper's).
    Place,
    /// The same, but fed that token too, beside the slot's own embedding.
    Token,
    /// One behind each description, whose item it names; the item tokens stand before
    /// them. Only what the descriptions say tells the items apart.
    Description,
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
    /// Where the slots are and what they must name.
    pub slots: ItemSlots,
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
    /// Which items are targets.
    pub targets: TargetRule,
    /// Smallest share of a user's training items that is hidden in a step.
    pub hide_min: f64,
    /// Largest share of a user's training items that is hidden in a step.
    pub hide_max: f64,
    /// The objective.
    pub loss: TargetLoss,
    /// Train the correction on top of the linear item model, whose logits are those that
    /// a fit without the user gives, so that it has not seen a hidden pair. `false`
    /// trains the correction alone and adds the linear model afterwards.
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
    /// The encoders that read the items' texts, the files' apart.
    pub fn item_encoders(&self) -> impl Iterator<Item = ItemEncoder> + '_ {
        let language = self.backbone != Backbone::None;
        let encoders = self.item_text.encoders.iter().copied();
        encoders.filter(move |&encoder| language || encoder != ItemEncoder::LanguageModel)
    }

    /// Whether the language model reads the items' texts.
    pub fn language_model_reads_items(&self) -> bool {
        self.reads_item_texts() && self.item_encoders().any(|e| e == ItemEncoder::LanguageModel)
    }

    /// Whether anything uses the items' text vectors.
    pub fn reads_item_texts(&self) -> bool {
        self.model.linear || self.model.node_features != NodeFeatures::Graph
    }
}
