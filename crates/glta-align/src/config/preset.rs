//! Presets, which are named configurations.

use std::str::FromStr;

use glta_gllm::{Decoder, GllmWeights};
use glta_graph::LightGcnConfig;
use glta_linear::LinearConfig;
use glta_llm::LlamaOptions;
use serde::{Deserialize, Serialize};

use super::{
    Backbone, Config, ItemSlots, ItemStageConfig, ItemTextConfig, ModelConfig, NodeFeatures,
    TargetLoss, TargetRule, TextsConfig, UserNode, UserStageConfig,
};
use crate::{Error, Result};

/// A named configuration, which [`Config::preset`] adapts to the density of the data.
///
/// ```
/// use glta_align::{Config, Density, Preset};
///
/// let default = Config::preset(Preset::Default, Density::Sparse);
/// assert!(default.model.linear && !default.model.prompt);
/// let paper = Config::preset(Preset::Paper, Density::Sparse);
/// assert!(paper.model.prompt && !paper.model.linear);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// The recommended configuration for your own catalogue: the linear model with text vectors,
    /// without a prompt path. The model is computed in closed form, and the language model is used
    /// only once, to encode the texts.
    #[default]
    Default,
    /// The whole method: graph pretraining, both alignments, and the prompt path as a correction of
    /// the linear model. In the prompt, only the user token represents the user. Item tokens and
    /// written texts are disabled, because they did not improve the results and took most of the
    /// time.
    Full,
    /// The paper's complete form, [`Config::complete`] of [`Full`](Self::Full). In training,
    /// targets are hidden from the prompt.
    Complete,
    /// The most literal reading of the paper that can work. Every training item is both shown in
    /// the prompt and a target. The user token is projected from the trained user embedding. The
    /// input of a slot is only its learned vector. The head is free, each slot has one random
    /// target, and weights are not averaged.
    Paper,
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "default" => Ok(Self::Default),
            "full" => Ok(Self::Full),
            "complete" => Ok(Self::Complete),
            "paper" => Ok(Self::Paper),
            _ => Err(Error::ConfigText(format!(
                "preset \"{name}\" does not exist; there are: default, full, complete, paper"
            ))),
        }
    }
}

/// The density of the data, which determines some values of a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Density {
    /// About a hundred items per user, as in MovieLens.
    Dense,
    /// Few items per user, as in shops and libraries.
    #[default]
    Sparse,
}

impl FromStr for Density {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "dense" => Ok(Self::Dense),
            "sparse" => Ok(Self::Sparse),
            _ => Err(Error::ConfigText(format!(
                "density \"{name}\" does not exist; there are: dense, sparse"
            ))),
        }
    }
}

impl Config {
    /// Returns the configuration of a preset for data of the given density.
    ///
    /// ```
    /// use glta_align::{Config, Density, Preset};
    ///
    /// let mut config = Config::preset("full".parse()?, Density::Dense);
    /// config.set("user_stage.train.epochs=3")?;
    /// assert!(config.model.prompt && config.model.linear);
    /// assert!(!Config::preset(Preset::Default, Density::Dense).model.prompt);
    /// # Ok::<(), glta_align::Error>(())
    /// ```
    pub fn preset(preset: Preset, density: Density) -> Self {
        match preset {
            Preset::Default => {
                let mut config = Self::full(density);
                config.model.prompt = false;
                config
            }
            Preset::Full => Self::full(density),
            Preset::Complete => Self::full(density).complete(),
            Preset::Paper => Self::paper(density),
        }
    }

    /// Returns the paper's complete form of this configuration: item tokens and both generated
    /// texts in the prompt, and slots that name items in parallel. The linear model is disabled,
    /// because with it the other parts would have no effect on the results.
    #[must_use]
    pub fn complete(&self) -> Self {
        let mut config = self.clone();
        config.model.prompt = true;
        config.model.linear = false;
        config.model.history = 5;
        config.model.slots = 5;
        config.model.decoder = Decoder::Parallel;
        config.texts.profile = true;
        config.texts.prediction = true;
        config
    }

    fn full(density: Density) -> Self {
        let mut config = Self::parts(density);
        // Item tokens and texts in the user prompt add no information to the user token, and take
        // most of the time.
        config.model.history = 0;
        config.texts.profile = false;
        config.texts.prediction = false;
        if density == Density::Sparse {
            // The popularity of the linear model has one weight for all items, a free bias one per
            // item.
            config.model.item_bias = false;
            // A user has few items, so learning from them soon overfits.
            config.user_stage.train.learning_rate = 1e-4;
            config.user_stage.train.epochs = 4;
            config.user_stage.train.patience = 1;
        }
        config
    }

    fn paper(density: Density) -> Self {
        let mut config = Self::parts(density);
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
            linear: false,
            graph_residual: false,
            decoder: Decoder::Parallel,
            ..config.model
        };
        config.user_stage.targets = TargetRule::All;
        config.user_stage.loss = TargetLoss::SampledSlots;
        config.user_stage.train.ema = 0.0;
        config.item_stage.train.ema = 0.0;
        config.item_stage.slots = ItemSlots::Place;
        config
    }

    /// Returns a configuration in which all parts have their defaults, except for the settings that
    /// depend only on the density.
    fn parts(density: Density) -> Self {
        let (layers, l2) = match density {
            // Four layers keep a run short; the complete model still writes the texts.
            Density::Dense => (4, vec![100.0, 300.0, 1000.0]),
            Density::Sparse => (6, vec![10.0, 30.0, 100.0, 300.0]),
        };
        Self {
            seed: 2024,
            backbone: Backbone::Llm,
            llm: LlamaOptions { layers: Some(layers), ..LlamaOptions::default() },
            // A small data set has few full batches; a higher rate compensates for this.
            graph: LightGcnConfig {
                learning_rate: 0.02,
                batch_size: 8192,
                epochs: 250,
                patience: 8,
                ..LightGcnConfig::default()
            },
            texts: TextsConfig::default(),
            item_text: ItemTextConfig::default(),
            linear: LinearConfig { l2, ..LinearConfig::default() },
            model: ModelConfig::default(),
            item_stage: ItemStageConfig::default(),
            user_stage: UserStageConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use glta_graph::{PositiveSampling, Schedule, SelectionMetric};
    use glta_linear::{Solver, TfIdfConfig, WhitenConfig};
    use glta_llm::Precision;
    use glta_metrics::Metric;

    use super::super::{Recompute, SlotPlacement, TrainConfig};
    use super::*;
    use crate::{ItemEncoder, TextVectorConfig};

    /// Returns all fields of [`Preset::Full`] on dense data.
    fn full_dense() -> Config {
        Config {
            seed: 2024,
            backbone: Backbone::Llm,
            llm: LlamaOptions { layers: Some(4), simd: None, precision: Precision::F32 },
            graph: LightGcnConfig {
                dim: 64,
                layers: 3,
                learning_rate: 0.02,
                schedule: Schedule::Constant,
                l2: 1e-4,
                batch_size: 8192,
                epochs: 250,
                init_std: 0.1,
                seed: 2024,
                positives: PositiveSampling::UniformUser,
                eval_every: 5,
                patience: 8,
                selection: SelectionMetric { metric: Metric::Ndcg, k: 10 },
                keep_best: true,
            },
            texts: TextsConfig {
                profile: false,
                prediction: false,
                max_items: 5,
                max_share: 0.34,
                words: 5,
                max_tokens: 12,
                dropout: 0.1,
            },
            item_text: ItemTextConfig {
                encoders: vec![ItemEncoder::LanguageModel, ItemEncoder::TfIdf],
                files: Vec::new(),
                language_model: TextVectorConfig {
                    layers: 6,
                    max_tokens: 48,
                    ..Default::default()
                },
                tf_idf: TfIdfConfig {
                    max_words: 80,
                    min_texts: 2,
                    max_terms: 200_000,
                    dimensions: 256,
                    max_texts: 50_000,
                },
                whiten: WhitenConfig { components: 192, strength: 1.0 },
            },
            linear: LinearConfig {
                solvers: vec![Solver::Local, Solver::Dense],
                sources: vec![64],
                rank: vec![128],
                l2: vec![100.0, 300.0, 1000.0],
                text: vec![1.0, 3.0, 10.0, 30.0],
                neighbours: vec![0.003, 0.01, 0.03, 0.1, 0.3],
                popularity: vec![0.001, 0.003, 0.01],
                new_items: 0.0,
                max_items: 20_000,
                rows: 256,
                text_neighbours: 128,
            },
            model: ModelConfig {
                prompt: true,
                slots: 1,
                slot_placement: SlotPlacement::Response,
                slot_user_token: true,
                user_id_text: false,
                autoregressive: false,
                user_node: UserNode::Context,
                node_features: NodeFeatures::GraphText,
                history: 0,
                gllm: GllmWeights::Tied,
                item_bias: true,
                linear: true,
                mix: vec![0.0, 0.25, 0.5, 1.0, 2.0, 4.0],
                graph_residual: false,
                decoder: Decoder::FirstLogit,
                recompute: Recompute::Auto,
                hidden_without_llm: 576,
            },
            item_stage: ItemStageConfig {
                enabled: true,
                items: 4,
                slots: ItemSlots::Token,
                max_tokens: 12,
                train: TrainConfig {
                    epochs: 4,
                    batch_size: 16,
                    learning_rate: 1e-3,
                    warmup_steps: 20,
                    final_ratio: 0.1,
                    clip_norm: 1.0,
                    ema: 0.97,
                    eval_every: 1,
                    patience: 3,
                    checkpoint_steps: 50,
                },
            },
            user_stage: UserStageConfig {
                targets: TargetRule::Hidden,
                hide_min: 0.2,
                hide_max: 0.9,
                loss: TargetLoss::Multinomial,
                on_linear: true,
                train: TrainConfig {
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
                },
            },
        }
    }

    fn changed(mut config: Config, change: impl Fn(&mut Config)) -> Config {
        change(&mut config);
        config
    }

    /// Changes the fields that every preset changes for sparse data.
    fn sparse(config: &mut Config) {
        config.llm.layers = Some(6);
        config.linear.l2 = vec![10.0, 30.0, 100.0, 300.0];
    }

    #[test]
    fn fields_of_full_and_default() {
        let full = |density| Config::preset(Preset::Full, density);
        assert_eq!(full(Density::Dense), full_dense());
        let full_sparse = changed(full_dense(), |config| {
            sparse(config);
            config.model.item_bias = false;
            config.user_stage.train.learning_rate = 1e-4;
            config.user_stage.train.epochs = 4;
            config.user_stage.train.patience = 1;
        });
        assert_eq!(full(Density::Sparse), full_sparse);
        for (density, full) in [(Density::Dense, full_dense()), (Density::Sparse, full_sparse)] {
            let alone = changed(full, |config| config.model.prompt = false);
            assert_eq!(Config::preset(Preset::Default, density), alone);
            if density == Density::Sparse {
                assert_eq!(Config::default(), alone);
            }
        }
    }

    #[test]
    fn fields_of_the_papers_forms() {
        let paper_dense = changed(full_dense(), |config| {
            config.texts.profile = true;
            config.texts.prediction = true;
            config.texts.max_share = 1.0;
            config.texts.dropout = 0.0;
            config.model.slots = 10;
            config.model.slot_user_token = false;
            config.model.user_node = UserNode::Embedding;
            config.model.node_features = NodeFeatures::Graph;
            config.model.history = 10;
            config.model.gllm = GllmWeights::Free;
            config.model.linear = false;
            config.model.decoder = Decoder::Parallel;
            config.item_stage.slots = ItemSlots::Place;
            config.item_stage.train.ema = 0.0;
            config.user_stage.targets = TargetRule::All;
            config.user_stage.loss = TargetLoss::SampledSlots;
            config.user_stage.train.ema = 0.0;
        });
        assert_eq!(Config::preset(Preset::Paper, Density::Dense), paper_dense);
        let paper_sparse = changed(paper_dense, sparse);
        assert_eq!(Config::preset(Preset::Paper, Density::Sparse), paper_sparse);

        let complete = changed(full_dense(), |config| {
            config.model.linear = false;
            config.model.history = 5;
            config.model.slots = 5;
            config.model.decoder = Decoder::Parallel;
            config.texts.profile = true;
            config.texts.prediction = true;
        });
        assert_eq!(Config::preset(Preset::Complete, Density::Dense), complete);
        assert_eq!(Config::preset(Preset::Default, Density::Dense).complete(), complete);
        assert_eq!(complete.complete(), complete);
    }

    #[test]
    fn names_are_parsed_and_unknown_ones_list_the_valid_ones() {
        for (name, preset) in [
            ("default", Preset::Default),
            ("full", Preset::Full),
            ("complete", Preset::Complete),
            ("paper", Preset::Paper),
        ] {
            assert_eq!(name.parse::<Preset>().unwrap(), preset);
            assert_eq!(serde_json::to_value(preset).unwrap(), name);
        }
        assert_eq!("dense".parse::<Density>().unwrap(), Density::Dense);
        assert_eq!("sparse".parse::<Density>().unwrap(), Density::Sparse);
        let message = "best".parse::<Preset>().unwrap_err().to_string();
        assert!(message.contains("default, full, complete, paper"), "{message}");
        let message = "Dense".parse::<Density>().unwrap_err().to_string();
        assert!(message.contains("dense, sparse"), "{message}");
    }
}
