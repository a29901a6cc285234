//! The trained part of GLTA around the frozen language model.

mod autoregressive;
mod hidden;
mod logits;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use glta_core::stream;
use glta_gllm::{Decoder, GllmHead, GllmWeights};
use glta_linear::LinearModel;
use glta_projector::{Parameters, Projector, normal_parameter};
use rand_chacha::rand_core::RngCore;

use crate::config::{Backbone, Config, ItemSlots, SlotPlacement};
use crate::files::{read_tensors, take, write_tensors};
use crate::nodes::Nodes;
use crate::optimizer::snapshot;
use crate::prompts::Prompts;
use crate::sampling::{ItemExample, UserExample};
use crate::{Error, Result};

pub(crate) use logits::{add_scaled, log_softmax};

/// The error if the backbone needs prompts but the model has none, which only a bug can cause.
const NO_PROMPTS: Error = Error::Internal("a model with a language model has no prompts");

/// The model of GLTA: projectors, slots and head, with the frozen nodes and language model.
#[derive(Debug, Clone)]
pub(crate) struct Glta {
    config: Config,
    nodes: Arc<Nodes>,
    prompts: Option<Arc<Prompts>>,
    item_projector: Projector,
    user_projector: Projector,
    slots: Var,
    head: GllmHead,
    linear: Option<Arc<LinearModel>>,
    /// Factor of the correction, which is chosen after training.
    mix: Var,
    device: Device,
}

impl Glta {
    /// Creates a model with initial weights. Returns an error if `prompts` is `None` and the
    /// backbone is not [`Backbone::None`].
    pub(crate) fn new(
        config: &Config,
        nodes: Arc<Nodes>,
        linear: Option<Arc<LinearModel>>,
        prompts: Option<Prompts>,
    ) -> Result<Self> {
        let (hidden, token_rms, device) = match (&prompts, config.backbone) {
            (Some(prompts), _) => {
                let llama = &prompts.language().llama;
                let rms = f64::from(llama.embedding_rms());
                (llama.config().hidden_size, rms, llama.device().clone())
            }
            (None, Backbone::None) => {
                (config.model.hidden_without_llm, 1.0, nodes.all_items().device().clone())
            }
            (None, _) => return Err(NO_PROMPTS),
        };
        let seed = |part: &str| stream(config.seed, part, &[]).next_u64();
        let projector = |part| Projector::new(nodes.dim(), hidden, token_rms, seed(part), &device);
        let bias = config.model.item_bias;
        let head = match config.model.gllm {
            GllmWeights::Tied => GllmHead::tied(hidden, nodes.all_items(), bias, seed("head"))?,
            _ => GllmHead::free(hidden, nodes.n_items(), bias, seed("head"), &device)?,
        };
        let n_slots = config.model.slots.max(config.item_stage.items);
        Ok(Self {
            item_projector: projector("item projector")?,
            user_projector: projector("user projector")?,
            slots: normal_parameter((n_slots, hidden), token_rms, seed("slots"), &device)?,
            head,
            linear,
            mix: Var::ones((), DType::F32, &device)?,
            config: config.clone(),
            nodes,
            prompts: prompts.map(Arc::new),
            device,
        })
    }

    /// Returns a model with the same weights and a different decoder.
    pub(crate) fn with_decoder(&self, decoder: Decoder) -> Self {
        let mut model = self.clone();
        model.config.model.decoder = decoder;
        model
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the items that the user's texts may reveal, in ascending order.
    pub(crate) fn text_items(&self, user: u32) -> &[u32] {
        self.prompts.as_ref().map_or(&[], |prompts| prompts.text_items(user))
    }

    /// Returns the parameters of stage 2: the item projector, the slots and the head.
    pub(crate) fn item_parameters(&self) -> Parameters {
        let mut parameters = Parameters::new();
        self.item_projector.collect("item_projector", &mut parameters);
        self.head.collect("head", false, &mut parameters);
        self.collect_slots(&mut parameters);
        parameters
    }

    /// Returns the parameters of stage 3: the user projector, the slots and the head. If stage 2 is
    /// disabled, they also include the item projector.
    pub(crate) fn user_parameters(&self) -> Parameters {
        let model = &self.config.model;
        let mut parameters = Parameters::new();
        let in_prompt = self.runs_prompt() && !model.user_id_text;
        let user_token_used = model.slot_user_token || in_prompt;
        if user_token_used {
            self.user_projector.collect("user_projector", &mut parameters);
        }
        let tokens_used = model.history > 0 || (model.autoregressive && model.slots > 1);
        if self.runs_prompt() && tokens_used && !self.config.item_stage.enabled {
            self.item_projector.collect("item_projector", &mut parameters);
        }
        self.head.collect("head", model.graph_residual, &mut parameters);
        self.collect_slots(&mut parameters);
        parameters
    }

    /// Returns whether the user prompt can affect the hidden states of the slots: the model has a
    /// backbone, and the slots do not precede the user's part of the prompt.
    fn runs_prompt(&self) -> bool {
        self.prompts.is_some()
            && self.config.backbone != Backbone::None
            && self.config.model.slot_placement != SlotPlacement::Prefix
    }

    fn collect_slots(&self, parameters: &mut Parameters) {
        if self.config.model.slot_placement != SlotPlacement::Last {
            parameters.insert("slots".to_owned(), self.slots.clone());
        }
    }

    fn all_parameters(&self) -> Parameters {
        let mut parameters = Parameters::new();
        self.item_projector.collect("item_projector", &mut parameters);
        self.user_projector.collect("user_projector", &mut parameters);
        self.head.collect("head", true, &mut parameters);
        parameters.insert("slots".to_owned(), self.slots.clone());
        if self.linear.is_some() {
            parameters.insert("mix".to_owned(), self.mix.clone());
        }
        parameters
    }

    pub(crate) fn save(&self, path: &Path, metadata: &str) -> Result<()> {
        write_tensors(path, &snapshot(&self.all_parameters())?, metadata)
    }

    /// Loads weights that [`save`](Self::save) wrote, and returns their metadata.
    pub(crate) fn load(&self, path: &Path) -> Result<String> {
        let (mut tensors, metadata) = read_tensors(path, &self.device)?;
        for (name, var) in self.all_parameters() {
            var.set(&take(&mut tensors, path, &name, var.dims(), var.dtype())?)?;
        }
        match tensors.keys().next() {
            None => Ok(metadata),
            Some(name) => Err(Error::file(path, format!("unexpected tensor {name}"))),
        }
    }

    /// Returns the relative lengths of the prompts of stage 2, by which the prompts are divided
    /// evenly among the ranks.
    pub(crate) fn item_lengths(&self, examples: &[ItemExample]) -> Result<Vec<usize>> {
        let length = |example| self.prompts.as_ref().map_or(Ok(0), |p| p.item_length(example));
        examples.iter().map(length).collect()
    }

    /// Returns the relative lengths of the prompts of stage 3, by which the prompts are divided
    /// evenly among the ranks.
    pub(crate) fn user_lengths(&self, examples: &[UserExample]) -> Vec<usize> {
        let length = |example| self.prompts.as_ref().map_or(0, |p| p.user_length(example));
        examples.iter().map(length).collect()
    }

    /// Returns the items that the slots of a stage-2 prompt must name, in order.
    fn named<'a>(&self, example: &'a ItemExample) -> &'a [u32] {
        match self.config.item_stage.slots {
            ItemSlots::Description => &example.descriptions,
            ItemSlots::Place | ItemSlots::Token => &example.items,
        }
    }

    /// Computes the contribution of some examples to the stage-2 loss. The loss is the
    /// cross-entropy of the head's logits with the item that each slot must name, as the mean over
    /// the slots of `all` examples.
    pub(crate) fn item_loss(&self, examples: &[ItemExample], all: usize) -> Result<Tensor> {
        let hidden = self.item_hidden(examples)?;
        let targets: Vec<Vec<u32>> =
            examples.iter().flat_map(|e| self.named(e).iter().map(|&i| vec![i])).collect();
        let masked = vec![Vec::new(); targets.len()];
        let slots = all * self.config.item_stage.items;
        Ok(self.head.loss_part(&hidden, None, None, &targets, &masked, slots)?)
    }

    /// Returns the number of slots whose highest logit, among the items shown, is that of the item
    /// to name. By chance, the share of these slots is one over the number of items shown.
    pub(crate) fn item_matches(&self, examples: &[ItemExample]) -> Result<usize> {
        let mut shown: Vec<u32> = examples.iter().flat_map(|e| e.items.iter().copied()).collect();
        shown.sort_unstable();
        shown.dedup();
        let hidden = self.item_hidden(examples)?.detach();
        let logits: Vec<Vec<f32>> = self.head.logits_of(&hidden, &shown)?.to_vec2()?;
        let at = |item: u32| shown.partition_point(|&other| other < item);
        let mut rows = logits.iter();
        let mut matches = 0;
        for example in examples {
            for (&item, row) in self.named(example).iter().zip(rows.by_ref()) {
                let own = row[at(item)];
                matches +=
                    usize::from(example.items.iter().all(|&i| i == item || row[at(i)] < own));
            }
        }
        Ok(matches)
    }

    pub(crate) fn n_items(&self) -> usize {
        self.nodes.n_items()
    }

    pub(crate) fn head(&self) -> &GllmHead {
        &self.head
    }

    pub(crate) fn linear(&self) -> Option<&Arc<LinearModel>> {
        self.linear.as_ref()
    }

    /// Returns whether stage 3 is trained on top of the linear model.
    pub(crate) fn corrects_linear(&self) -> bool {
        self.linear.is_some() && self.config.user_stage.on_linear
    }

    /// Returns the factor of the correction.
    pub(crate) fn mix(&self) -> Result<f32> {
        Ok(self.mix.to_scalar()?)
    }

    pub(crate) fn set_mix(&self, mix: f64) -> Result<()> {
        Ok(self.mix.set(&Tensor::new(mix as f32, &self.device)?)?)
    }
}
