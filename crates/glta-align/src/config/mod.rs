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
/// sparse data, which is the linear model alone. [`Config::preset`] returns the other presets.
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
    /// Seed of the random choices in stages 2 and 3 and of the generated texts. Graph pretraining
    /// has its own seed. Default 2024.
    pub seed: u64,
    /// Model that computes hidden states from prompts.
    pub backbone: Backbone,
    /// Options of the language model, such as its number of layers and its precision.
    pub llm: LlamaOptions,
    /// Settings of stage 1, graph pretraining.
    pub graph: LightGcnConfig,
    /// Settings of the profiles and predictions that the language model writes.
    pub texts: TextsConfig,
    /// Settings of the text vectors of the items.
    pub item_text: ItemTextConfig,
    /// Settings of the linear model, whose scores the prompt path corrects.
    pub linear: LinearConfig,
    /// Settings of a user's prompt, and of the scores that are computed from it.
    pub model: ModelConfig,
    /// Settings of stage 2, item-text alignment.
    pub item_stage: ItemStageConfig,
    /// Settings of stage 3, user-item alignment.
    pub user_stage: UserStageConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self::preset(Preset::Default, Density::Sparse)
    }
}

/// A model that computes hidden states from a prompt. All variants except `Llm` are controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Backbone {
    /// The language model with its pretrained weights.
    #[default]
    Llm,
    /// The architecture of the language model with random weights.
    RandomLlm,
    /// No model. The head reads the input vectors of the slots, scaled to a root mean square of
    /// one.
    None,
}

/// Settings of profiles and predictions (thesis, chapter 4), which are texts about a user that the
/// language model writes from descriptions of training items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextsConfig {
    /// Whether the prompt contains the profile. `false` is the paper's "w/o PF". Default true.
    pub profile: bool,
    /// Whether the prompt contains the prediction. `false` is the paper's "w/o PD". Default true.
    pub prediction: bool,
    /// Maximum number of item descriptions from which a text is written. Default 5.
    pub max_items: usize,
    /// Maximum share of a user's training items from which a text is written. With
    /// [`TargetRule::Hidden`] these items are never targets, so a text cannot reveal a target.
    /// Default 0.34.
    pub max_share: f64,
    /// Number of words that the instruction asks for (`{K}`). Default 5.
    pub words: usize,
    /// Maximum number of generated tokens per text. Default 12.
    pub max_tokens: usize,
    /// Share of training examples without the user's texts, so that the model also serves users
    /// without texts. Default 0.1.
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

/// Settings of the text vectors of the items. The vectors are computed once. Those of each encoder
/// are whitened separately, and then concatenated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemTextConfig {
    /// Encoders of the item texts. With [`Backbone::None`] the language model is omitted, and with
    /// [`Backbone::RandomLlm`] it has random weights. Default the language model and TF-IDF.
    pub encoders: Vec<ItemEncoder>,
    /// Files of vectors by raw id ([`ItemVectors::file`](crate::ItemVectors::file)). Each is an
    /// additional encoder. Default none.
    pub files: Vec<PathBuf>,
    /// Settings of the vectors of the language model.
    pub language_model: TextVectorConfig,
    /// Settings of the TF-IDF encoder.
    pub tf_idf: TfIdfConfig,
    /// Settings of the whitening, which is fitted for each encoder.
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

/// Features of an item from which its token and the tied head are projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeFeatures {
    /// The graph embedding, as in the paper.
    Graph,
    /// The text vector. Unlike a graph embedding, it was not fitted on the interactions that
    /// training hides from the prompt, which matters on sparse data.
    Text,
    /// The graph embedding and the text vector, concatenated. The projector adds their projections.
    GraphText,
}

/// The positions of the slots in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotPlacement {
    /// The slots follow the whole prompt.
    Response,
    /// There are no separate slots. The head reads the hidden states at the last positions of the
    /// prompt instead.
    Last,
    /// The slots directly follow the static instruction and precede everything that depends on the
    /// user, which is the literal reading of the paper's "first positions". A slot sees only its
    /// own input.
    Prefix,
}

/// The node from which the user token is projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UserNode {
    /// The node that one step through the frozen graph computes from the context items, `Σ e_i /
    /// √deg_i`. It also exists for users who are not in the training data.
    Context,
    /// The user's LightGCN embedding, which was fitted on the targets themselves. The model then
    /// learns in part to copy the targets from the embedding, and overfits.
    Embedding,
}

/// A rule that selects the targets among a user's training items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetRule {
    /// A random part of the items is hidden from the prompt, and exactly this part is the targets.
    Hidden,
    /// No item is hidden, and all items are targets (the paper's reading).
    All,
}

/// The training objective of a user's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetLoss {
    /// The loss of each slot is the cross-entropy with one random target of the user (equation 3 of
    /// the paper).
    SampledSlots,
    /// The loss of each slot is the cross-entropy between its softmax and the uniform distribution
    /// over all targets of the user.
    Multinomial,
}

/// Settings of a user's prompt, and of the scores that are computed from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of slots in a user's prompt. Default 1.
    pub slots: usize,
    /// Positions of the slots. Default [`SlotPlacement::Response`].
    pub slot_placement: SlotPlacement,
    /// Whether the user token is added to the input of every slot. Default true.
    pub slot_user_token: bool,
    /// Whether the prompt contains the user's number as text instead of the user token (the paper's
    /// "w/o UA"). Default false.
    pub user_id_text: bool,
    /// Whether the token of the item that a slot names is added to the input of the next slot (the
    /// paper's "AR"). In training, it is the token of a target. To compute a list, the language
    /// model then processes one token per item, one after the other, and `decoder` is not used.
    /// Default false.
    pub autoregressive: bool,
    /// Node from which the user token is projected. Default [`UserNode::Context`].
    pub user_node: UserNode,
    /// Features of the item tokens and of the tied head. Without text vectors, these are graph
    /// embeddings. Default [`NodeFeatures::GraphText`].
    pub node_features: NodeFeatures,
    /// Maximum number of item tokens in a user's prompt. Default 5.
    pub history: usize,
    /// Kind of the head's weights. Default [`GllmWeights::Tied`].
    pub gllm: GllmWeights,
    /// Whether the head has a learned bias per item. Default true.
    pub item_bias: bool,
    /// Whether there is a prompt path: graph pretraining, the two alignment stages and the head.
    /// `false` selects the linear model alone. It requires [`linear`](Self::linear), and the other
    /// fields of this struct are then not used. Default true.
    pub prompt: bool,
    /// Whether the prompt path adds a correction to the logits of the [linear
    /// model](Config::linear). If `false`, the logits of the prompt path are the scores. Default
    /// true.
    pub linear: bool,
    /// Factors of the correction to try after training. The factor with the best validation N@10 is
    /// chosen. Without validation data, it is the only factor of the list, or 1 if the list has
    /// several. The factor 0 removes the correction. Default 0, 0.25, 0.5, 1, 2 and 4.
    pub mix: Vec<f64>,
    /// Whether `α · (e_u · e_i)` is added to the logits, with the nodes `e_u` of the user and `e_i`
    /// of the item, and a learned `α`. Default false.
    pub graph_residual: bool,
    /// Rule that combines the logits of the slots into a list. Default [`Decoder::FirstLogit`].
    pub decoder: Decoder,
    /// Whether the backward pass computes the layers of the language model again instead of keeping
    /// their activations. Default [`Recompute::Auto`].
    pub recompute: Recompute,
    /// Hidden size for [`Backbone::None`] without a language model. If a language model is given,
    /// its hidden size is used, so that both have equal numbers of parameters. Default 576.
    pub hidden_without_llm: usize,
}

/// A rule that decides for which batches the backward pass recomputes activations. Recomputation
/// takes more time but less memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recompute {
    /// Recomputation only for batches whose activations need more than 3 GiB, or, on a GPU, more
    /// than half of its free memory. This is the default.
    #[default]
    Auto,
    /// Recomputation for all batches. The forward pass then keeps only one hidden state per token
    /// and layer.
    Always,
    /// No recomputation. Training is about a third faster than with [`Always`](Self::Always).
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

/// Settings of the optimisation of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Maximum number of passes over the stage's examples. Default 10.
    pub epochs: usize,
    /// Number of examples per step. Default 32.
    pub batch_size: usize,
    /// Adam's learning rate after the warm-up. Default 2e-3.
    pub learning_rate: f64,
    /// Number of steps over which the learning rate rises from zero. Default 20.
    pub warmup_steps: usize,
    /// Fraction of the learning rate that remains at the end of the stage. After the warm-up, the
    /// learning rate falls along a half cosine. Default 0.1.
    pub final_ratio: f64,
    /// Maximum L2 norm of all gradients together. Larger gradients are scaled down. Default 1.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights, which is evaluated and saved. 0 disables the
    /// average. Default 0.97.
    pub ema: f64,
    /// Number of epochs between two evaluations on validation data. Default 1.
    pub eval_every: usize,
    /// Number of evaluations without a better result after which the stage ends. 0 disables early
    /// stopping. Default 3.
    pub patience: usize,
    /// Number of steps between two training checkpoints. One is also saved at the end of each
    /// epoch. Default 50.
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

/// The positions of the slots in stage 2, and the items that they must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemSlots {
    /// The slots follow the prompt. Slot `t` names the item of the `t`-th item token, which it has
    /// to find by its position, as in the paper.
    Place,
    /// The slots are placed as in [`Place`](Self::Place), but the input of slot `t` also contains
    /// the `t`-th item token.
    Token,
    /// One slot follows each description and names its item. The item tokens come before the
    /// descriptions. Only the descriptions distinguish the items.
    Description,
}

/// Settings of stage 2, item-text alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemStageConfig {
    /// Whether the stage is trained. `false` is the paper's "w/o IA", in which stage 3 trains the
    /// item projector together with the user projector. Default true.
    pub enabled: bool,
    /// Number of items in a prompt. Default 4.
    pub items: usize,
    /// Positions of the slots, and items that they must name. Default [`ItemSlots::Token`].
    pub slots: ItemSlots,
    /// Maximum number of tokens of a description. Default 12.
    pub max_tokens: usize,
    /// Settings of the optimisation. By default, the stage takes 4 epochs with batches of 16 and a
    /// learning rate of 1e-3.
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

/// Settings of stage 3, user-item alignment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserStageConfig {
    /// Rule that selects a user's targets. Default [`TargetRule::Hidden`].
    pub targets: TargetRule,
    /// Minimum share of a user's training items that is hidden in a step. Default 0.2.
    pub hide_min: f64,
    /// Maximum share of a user's training items that is hidden in a step. Default 0.9.
    pub hide_max: f64,
    /// Training objective of the slots. Default [`TargetLoss::Multinomial`].
    pub loss: TargetLoss,
    /// Whether the correction is trained on top of the linear model. In training, the logits of the
    /// linear model are those of a fit without the user, which has not seen the hidden items.
    /// `false` trains the prompt path alone and adds the linear model afterwards. Default true.
    pub on_linear: bool,
    /// Settings of the optimisation.
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
    /// Returns the encoders of the item texts, without files.
    pub fn item_encoders(&self) -> impl Iterator<Item = ItemEncoder> + '_ {
        let language = self.backbone != Backbone::None;
        let encoders = self.item_text.encoders.iter().copied();
        encoders.filter(move |&encoder| language || encoder != ItemEncoder::LanguageModel)
    }

    /// Returns whether the language model encodes the item texts.
    pub fn language_model_reads_items(&self) -> bool {
        self.reads_item_texts() && self.item_encoders().any(|e| e == ItemEncoder::LanguageModel)
    }

    /// Returns whether the configuration uses text vectors of the items.
    pub fn reads_item_texts(&self) -> bool {
        self.model.linear || self.model.node_features != NodeFeatures::Graph
    }
}
