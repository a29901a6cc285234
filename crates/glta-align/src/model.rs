//! The trained part of GLTA around the frozen language model.

use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor, Var};
use glta_gllm::{Decoder, GllmHead, GllmWeights, GraphResidual, Ranked, decode};
use glta_llm::{ForwardOptions, Prefix};
use glta_projector::{Parameters, Piece, Projector, normal_var, splice};
use rayon::prelude::*;

use crate::config::{Backbone, Config, Recompute, SlotPlacement, UserNode};
use crate::files::{read_tensors, take, write_tensors};
use crate::kernel::Kernel;
use crate::nodes::Nodes;
use crate::optimizer::snapshot;
use crate::prompts::{Prompts, Row};
use crate::sampling::{ItemExample, UserExample};
use crate::{Error, Result};

/// Activations that may be kept for the backward pass before layers are
/// recomputed instead.
const ACTIVATION_BUDGET: usize = 3 << 30;

/// Projectors, slots and head, with the frozen nodes and language model.
#[derive(Debug, Clone)]
pub(crate) struct Glta {
    config: Config,
    nodes: Arc<Nodes>,
    prompts: Option<Arc<Prompts>>,
    item_projector: Projector,
    user_projector: Projector,
    slots: Var,
    head: GllmHead,
    kernel: Option<Arc<Kernel>>,
    /// Factor of the head's logits beside the kernel's, chosen after training.
    mix: Var,
    device: Device,
}

impl Glta {
    /// A model with fresh weights. `prompts` may be absent only for
    /// [`Backbone::None`].
    pub(crate) fn new(
        config: &Config,
        nodes: Arc<Nodes>,
        kernel: Option<Arc<Kernel>>,
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
            (None, _) => return Err(Error::NoLlm),
        };
        let seed = |part: u64| config.seed.wrapping_mul(1_000_003).wrapping_add(part);
        let projector = |part| Projector::new(nodes.dim(), hidden, token_rms, seed(part), &device);
        let bias = config.model.item_bias;
        let head = match config.model.gllm {
            GllmWeights::Tied => GllmHead::tied(hidden, nodes.all_items(), bias, seed(3))?,
            _ => GllmHead::free(hidden, nodes.n_items(), bias, seed(3), &device)?,
        };
        let n_slots = config.model.slots.max(config.item_stage.items);
        Ok(Self {
            item_projector: projector(1)?,
            user_projector: projector(2)?,
            slots: normal_var((n_slots, hidden), token_rms, seed(4), &device)?,
            head,
            kernel,
            mix: Var::ones((), DType::F32, &device)?,
            config: config.clone(),
            nodes,
            prompts: prompts.map(Arc::new),
            device,
        })
    }

    /// The same weights under another decoder.
    pub(crate) fn with_decoder(&self, decoder: Decoder) -> Self {
        let mut model = self.clone();
        model.config.model.decoder = decoder;
        model
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Items that the prompt gives away through the user's texts, ascending.
    pub(crate) fn text_items(&self, user: u32) -> &[u32] {
        self.prompts.as_ref().map_or(&[], |prompts| prompts.text_items(user))
    }

    /// Stage 2 trains the item projector, the slots and the head.
    pub(crate) fn item_parameters(&self) -> Parameters {
        let mut parameters = Parameters::new();
        self.item_projector.collect("item_projector", &mut parameters);
        self.head.collect("head", false, &mut parameters);
        self.collect_slots(&mut parameters);
        parameters
    }

    /// Stage 3 trains the user projector, the slots and the head, and the item
    /// projector too when there was no stage 2 to train it.
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

    /// Whether what the user prompt says can reach the slots.
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
        if self.kernel.is_some() {
            parameters.insert("mix".to_owned(), self.mix.clone());
        }
        parameters
    }

    pub(crate) fn save(&self, path: &Path, metadata: &str) -> Result<()> {
        write_tensors(path, &snapshot(&self.all_parameters())?, metadata)
    }

    pub(crate) fn load(&self, path: &Path) -> Result<()> {
        let (mut tensors, _) = read_tensors(path, &self.device)?;
        for (name, var) in self.all_parameters() {
            var.set(&take(&mut tensors, path, &name, var.dims())?)?;
        }
        match tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::file(path, format!("unexpected tensor {name}"))),
        }
    }

    /// Stage-2 loss: slot `t` of every example must name its `t`-th item.
    pub(crate) fn item_loss(&self, examples: &[ItemExample]) -> Result<Tensor> {
        let hidden = self.item_hidden(examples)?;
        let targets: Vec<Vec<u32>> =
            examples.iter().flat_map(|e| e.items.iter().map(|&i| vec![i])).collect();
        let masked = vec![Vec::new(); targets.len()];
        Ok(self.head.loss(&hidden, None, None, &targets, &masked)?)
    }

    /// How many slots give the right item the highest logit among the items
    /// shown; chance is one over their number.
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
            for (&item, row) in example.items.iter().zip(rows.by_ref()) {
                let own = row[at(item)];
                matches +=
                    usize::from(example.items.iter().all(|&i| i == item || row[at(i)] < own));
            }
        }
        Ok(matches)
    }

    /// Hidden states of the slots of stage-2 prompts: `(examples × items, hidden)`.
    fn item_hidden(&self, examples: &[ItemExample]) -> Result<Tensor> {
        let prompts = self.prompts.as_ref().ok_or(Error::NoLlm)?;
        let per = examples.first().map_or(0, |e| e.items.len());
        let items: Vec<u32> = examples.iter().flat_map(|e| e.items.iter().copied()).collect();
        let tokens = self.item_projector.forward(&self.nodes.items(&items)?)?;
        let soft = Tensor::cat(&[&tokens, &self.slots.narrow(0, 0, per)?], 0)?;
        let slots: Vec<u32> = (items.len() as u32..(items.len() + per) as u32).collect();
        let rows = examples
            .iter()
            .zip(0u32..)
            .map(|(example, row)| {
                let first = row * per as u32;
                let own: Vec<u32> = (first..first + per as u32).collect();
                let slots = self.own_slots(&slots);
                prompts.item_row(example, &own, slots)
            })
            .collect::<Result<Vec<_>>>()?;
        self.run(prompts, prompts.item_prefix(), &rows, &soft)
    }

    fn own_slots<'a>(&self, slots: &'a [u32]) -> &'a [u32] {
        if self.config.model.slot_placement == SlotPlacement::Last { &[] } else { slots }
    }

    /// Hidden states of the users' first `n` slots `(examples × n, hidden)`, and the
    /// graph residual where it is on.
    pub(crate) fn user_hidden(
        &self,
        examples: &[UserExample],
        n: usize,
    ) -> Result<(Tensor, Option<GraphResidual>)> {
        let model = &self.config.model;
        let b = examples.len();
        let nodes = match model.user_node {
            UserNode::Context => {
                self.nodes.contexts(examples.iter().map(|e| e.context.as_slice()))?
            }
            UserNode::Embedding => self
                .nodes
                .users(examples.iter().map(|example| (example.user, example.context.as_slice())))?,
        };
        let user_tokens = self.user_projector.forward(&nodes)?;
        // Slot inputs of user r are rows r·n .. (r+1)·n: slot embedding, plus
        // the user token where that is on.
        // Slots beyond those that were trained are fed the last one's embedding.
        let last = model.slots.saturating_sub(1);
        let index: Vec<u32> = (0..n).map(|slot| slot.min(last) as u32).collect();
        let own = self.slots.index_select(&Tensor::new(index, &self.device)?, 0)?.unsqueeze(0)?;
        let hidden = own.dim(D::Minus1)?;
        let inputs = if model.slot_user_token {
            own.broadcast_add(&user_tokens.unsqueeze(1)?)?
        } else {
            own.broadcast_as((b, n, hidden))?.contiguous()?
        };
        let mut inputs = inputs.reshape((b * n, hidden))?;
        if let Some(fed) = self.fed_tokens(examples, n)? {
            inputs = (inputs + fed)?;
        }
        let z = match &self.prompts {
            Some(prompts) if self.config.backbone != Backbone::None => {
                let soft = Tensor::cat(&[&user_tokens, &inputs], 0)?;
                self.run_users(prompts, examples, n, soft)?
            }
            _ => unit_rms(&inputs)?,
        };
        let residual = model
            .graph_residual
            .then(|| -> Result<GraphResidual> {
                let d = self.nodes.dim();
                let users = nodes.unsqueeze(1)?.broadcast_as((b, n, d))?.reshape((b * n, d))?;
                Ok(GraphResidual { users, items: self.nodes.all_items().clone() })
            })
            .transpose()?;
        Ok((z, residual))
    }

    /// Aligned tokens of items; frozen in stage 3 unless there was no stage 2.
    fn item_tokens(&self, items: &[u32]) -> Result<Tensor> {
        let tokens = self.item_projector.forward(&self.nodes.items(items)?)?;
        Ok(if self.config.item_stage.enabled { tokens.detach() } else { tokens })
    }

    /// What the items named by earlier slots add to the slots' inputs: `(examples
    /// × n, hidden)`.
    fn fed_tokens(&self, examples: &[UserExample], n: usize) -> Result<Option<Tensor>> {
        let mut items: Vec<u32> = examples.iter().flat_map(|e| e.fed.iter().copied()).collect();
        items.sort_unstable();
        items.dedup();
        if items.is_empty() || n < 2 {
            return Ok(None);
        }
        let tokens = self.item_tokens(&items)?;
        let none = Tensor::zeros((1, tokens.dim(1)?), tokens.dtype(), &self.device)?;
        let rows = Tensor::cat(&[&none, &tokens], 0)?;
        let row = |item: &u32| 1 + items.partition_point(|other| other < item) as u32;
        let index: Vec<u32> = examples
            .iter()
            .flat_map(|e| {
                (0..n).map(|s| s.checked_sub(1).and_then(|s| e.fed.get(s)).map_or(0, row))
            })
            .collect();
        Ok(Some(rows.index_select(&Tensor::new(index, &self.device)?, 0)?))
    }

    /// `soft`: user tokens, then slot inputs; item tokens are added here.
    fn run_users(
        &self,
        prompts: &Prompts,
        examples: &[UserExample],
        n: usize,
        soft: Tensor,
    ) -> Result<Tensor> {
        let (b, n) = (examples.len() as u32, n as u32);
        let mut shown: Vec<u32> = examples.iter().flat_map(|e| e.shown.iter().copied()).collect();
        shown.sort_unstable();
        shown.dedup();
        let first_item = soft.dim(0)? as u32;
        let soft = if shown.is_empty() {
            soft
        } else {
            Tensor::cat(&[&soft, &self.item_tokens(&shown)?], 0)?
        };
        let rows = examples
            .iter()
            .zip(0u32..)
            .map(|(example, r)| {
                let token =
                    |item: &u32| first_item + shown.partition_point(|other| other < item) as u32;
                let items: Vec<u32> = example.shown.iter().map(token).collect();
                let slots: Vec<u32> = (b + r * n..b + (r + 1) * n).collect();
                prompts.user_row(example, r, &items, self.own_slots(&slots), n as usize)
            })
            .collect::<Result<Vec<_>>>()?;
        self.run(prompts, prompts.user_prefix(), &rows, &soft)
    }

    /// Runs prompts through the language model and gathers the slots' states.
    fn run(
        &self,
        prompts: &Prompts,
        prefix: Option<&Prefix>,
        rows: &[Row],
        soft: &Tensor,
    ) -> Result<Tensor> {
        let llama = &prompts.language().llama;
        let pieces: Vec<Vec<Piece>> = rows.iter().map(|row| row.pieces.clone()).collect();
        let batch = splice(&pieces, soft, |ids| {
            llama.embed(ids).map_err(|e| candle_core::Error::Msg(e.to_string()))
        })?;
        let (b, seq, hidden) = batch.embeds.dims3()?;
        let recompute = match self.config.model.recompute {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => {
                let c = llama.config();
                let per_token = c.num_hidden_layers * (8 * hidden + 3 * c.intermediate_size) * 4;
                b * seq * per_token > ACTIVATION_BUDGET
            }
        };
        let options = ForwardOptions { prefix, recompute };
        let states = llama.hidden_states(&batch.embeds, &batch.lengths, &options)?;
        let index: Vec<u32> = rows
            .iter()
            .enumerate()
            .flat_map(|(r, row)| row.slots.iter().map(move |&at| (r * seq + at) as u32))
            .collect();
        let index = Tensor::new(index.as_slice(), &self.device)?;
        Ok(states.reshape((b * seq, hidden))?.index_select(&index, 0)?)
    }

    pub(crate) fn head(&self) -> &GllmHead {
        &self.head
    }

    pub(crate) fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_deref()
    }

    /// Whether stage 3 is trained on top of the kernel.
    pub(crate) fn corrects_kernel(&self) -> bool {
        self.kernel.is_some() && self.config.kernel.in_training
    }

    pub(crate) fn set_mix(&self, mix: f64) -> Result<()> {
        Ok(self.mix.set(&Tensor::new(mix as f32, &self.device)?)?)
    }

    /// The kernel's logits for every slot of training examples, without the users
    /// they belong to: `(examples × slots, items)`.
    pub(crate) fn offset(&self, examples: &[UserExample]) -> Result<Option<Tensor>> {
        let Some(kernel) = self.kernel.as_ref().filter(|_| self.corrects_kernel()) else {
            return Ok(None);
        };
        let _span = tracing::debug_span!("kernel").entered();
        let queries = examples.iter().map(|e| (e.context.as_slice(), e.user));
        let rows = kernel.rows(queries, &self.device)?;
        let (b, n, items) = (examples.len(), self.config.model.slots, self.nodes.n_items());
        let rows = rows.unsqueeze(1)?.broadcast_as((b, n, items))?.reshape((b * n, items))?;
        Ok(Some(rows))
    }

    /// The best `k` items for each example, leaving out its excluded items. Without a
    /// kernel the logits of all items are never there at once.
    pub(crate) fn rank(
        &self,
        examples: &[UserExample],
        excluded: &[&[u32]],
        k: usize,
    ) -> Result<Vec<Vec<Ranked>>> {
        let (slots, decoder) = (self.config.model.slots, self.config.model.decoder);
        if self.kernel.is_none() {
            let (hidden, residual) = self.user_hidden(examples, slots)?;
            let hidden = hidden.detach();
            return Ok(self.head.rank(&hidden, residual.as_ref(), slots, excluded, k, decoder)?);
        }
        let logits = self.slot_logits(examples)?;
        let lists = logits.iter().zip(excluded);
        Ok(lists
            .map(|(slots, excluded)| decode(slots, excluded, k, decoder))
            .collect::<std::result::Result<_, _>>()?)
    }

    /// Logits of every example's slots: one `slots × items` block each.
    pub(crate) fn slot_logits(&self, examples: &[UserExample]) -> Result<Vec<Vec<Vec<f32>>>> {
        let mix = self.mix.to_scalar::<f32>()?;
        let corrections = if mix == 0.0 && self.kernel.is_some() {
            None
        } else {
            Some(self.head_logits(examples)?)
        };
        let Some(kernel) = &self.kernel else {
            return Ok(corrections.unwrap_or_default());
        };
        let slots = self.slots_read(examples);
        examples
            .par_iter()
            .enumerate()
            .map(|(at, example)| {
                let base = kernel.logits(&example.context, None)?;
                Ok(match &corrections {
                    None => vec![base; slots],
                    Some(corrections) => mixed(&base, &corrections[at], mix),
                })
            })
            .collect()
    }

    /// Slots whose logits are wanted: an autoregressive model has one more than items
    /// were fed.
    fn slots_read(&self, examples: &[UserExample]) -> usize {
        match self.config.model.autoregressive {
            true => 1 + examples.iter().map(|e| e.fed.len()).max().unwrap_or(0),
            false => self.config.model.slots,
        }
    }

    /// Logits of every example's slots as the head has them, without the kernel.
    pub(crate) fn head_logits(&self, examples: &[UserExample]) -> Result<Vec<Vec<Vec<f32>>>> {
        let slots = self.slots_read(examples);
        let (hidden, residual) = self.user_hidden(examples, slots)?;
        let logits: Vec<Vec<f32>> =
            self.head.logits(&hidden.detach(), residual.as_ref())?.to_vec2()?;
        let mut rows = logits.into_iter();
        Ok(examples.iter().map(|_| rows.by_ref().take(slots).collect()).collect())
    }
}

/// The kernel's logits plus `factor` times each slot's.
pub(crate) fn mixed(base: &[f32], slots: &[Vec<f32>], factor: f32) -> Vec<Vec<f32>> {
    let mix = |slot: &Vec<f32>| base.iter().zip(slot).map(|(b, c)| b + factor * c).collect();
    slots.iter().map(mix).collect()
}

/// Rows scaled to a root mean square of one, like a language model's final norm
/// does, so that the head starts from the same scale without it.
fn unit_rms(rows: &Tensor) -> Result<Tensor> {
    let rms = (rows.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    Ok(rows.broadcast_div(&rms)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use glta_data::Interactions;
    use glta_graph::NodeEmbeddings;
    use glta_llm::LlamaOptions;
    use ndarray::Array2;

    use super::*;
    use crate::config::{NodeFeatures, TargetLoss};
    use crate::data::ItemRecord;
    use crate::language::LanguageModel;
    use crate::texts::UserTexts;
    use crate::tiny_llm;

    /// Five users, seven items, a profile for user 1.
    fn model(change: impl Fn(&mut Config)) -> Glta {
        let folder = tempfile::tempdir().unwrap();
        tiny_llm::write(folder.path());
        let language =
            LanguageModel::load(folder.path(), &LlamaOptions::default(), &Device::Cpu).unwrap();
        let values = |rows: usize, shift: f32| {
            Array2::from_shape_fn((rows, 4), |(r, c)| ((r * 7 + c * 3) as f32 + shift).sin())
        };
        let embeddings = NodeEmbeddings { users: values(5, 0.3), items: values(7, 1.1) };
        let pairs = (0..5).flat_map(|u| (0..4).map(move |i| (u, (u + 2 * i) % 7)));
        let train = Interactions::from_pairs(5, 7, pairs).unwrap();
        let nodes = Arc::new(
            Nodes::new(&embeddings, &train, None, NodeFeatures::Graph, &Device::Cpu).unwrap(),
        );
        let items: Vec<ItemRecord> = (0..7)
            .map(|n| ItemRecord {
                raw_id: n.to_string(),
                title: format!("Item {n}"),
                text: format!("a thing called {n}"),
            })
            .collect();
        let mut config = Config::default();
        config.model.history = 2;
        config.item_stage.items = 3;
        change(&mut config);
        config.validate().unwrap();
        let texts = UserTexts {
            user: 1,
            items: vec![1],
            profile: "quiet".into(),
            prediction: "loud, fast".into(),
        };
        let texts = BTreeMap::from([(1, texts)]);
        let prompts = Prompts::new(language, &items, texts, &config).unwrap();
        Glta::new(&config, nodes, None, Some(prompts)).unwrap()
    }

    fn users() -> Vec<UserExample> {
        let example = |user, context: &[u32], shown: &[u32], targets: &[u32]| UserExample {
            user: Some(user),
            context: context.to_vec(),
            shown: shown.to_vec(),
            targets: targets.to_vec(),
            texts: true,
            fed: Vec::new(),
        };
        vec![example(1, &[1, 3], &[3, 1], &[0, 5]), example(2, &[2, 4, 6], &[4, 2], &[1])]
    }

    fn user_loss(model: &Glta) -> Tensor {
        let mut examples = users();
        let slots = model.config().model.slots;
        if model.config().model.autoregressive {
            examples[0].fed = vec![0, 5];
            examples[1].fed = vec![1];
        }
        let (hidden, residual) = model.user_hidden(&examples, slots).unwrap();
        let targets: Vec<Vec<u32>> =
            examples.iter().flat_map(|e| std::iter::repeat_n(e.targets.clone(), slots)).collect();
        let masked = vec![Vec::new(); targets.len()];
        model.head().loss(&hidden, residual.as_ref(), None, &targets, &masked).unwrap()
    }

    /// Compares the gradient of every parameter with central differences along
    /// a fixed direction.
    fn check(model: &Glta, parameters: &Parameters, loss: impl Fn() -> Tensor) {
        let store = loss().backward().unwrap();
        for (name, var) in parameters {
            let gradient: Vec<f32> =
                store.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let base: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
            // A direction half along the gradient, so that it is not orthogonal.
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt().max(1e-12);
            let spread = 1.0 / (gradient.len() as f32).sqrt();
            let direction: Vec<f32> = gradient
                .iter()
                .enumerate()
                .map(|(i, g)| g / norm + 0.5 * spread * (i as f32 * 1.7).sin())
                .collect();
            let scale = base.iter().map(|v| v * v).sum::<f32>().sqrt().max(1.0);
            let eps = 3e-3 * scale;
            let shifted = |by: f32| -> f64 {
                let values = base.iter().zip(&direction).map(|(v, d)| v + by * d).collect();
                var.set(&Tensor::from_vec(values, var.dims(), &model.device).unwrap()).unwrap();
                f64::from(loss().to_scalar::<f32>().unwrap())
            };
            let numeric = (shifted(eps) - shifted(-eps)) / (2.0 * f64::from(eps));
            shifted(0.0);
            let exact: f64 =
                gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let error = (numeric - exact).abs() / exact.abs().max(1e-3);
            assert!(exact.abs() > 0.0, "{name}: the gradient is zero");
            assert!(error < 0.03, "{name}: {numeric} by differences, {exact} by backward");
        }
    }

    #[test]
    fn gradients_of_the_user_stage_from_prompt_to_loss() {
        for recompute in [Recompute::Never, Recompute::Always] {
            let model = model(|c| {
                c.model.recompute = recompute;
                c.model.graph_residual = true;
                c.model.slots = 2;
            });
            check(&model, &model.user_parameters(), || user_loss(&model));
        }
    }

    #[test]
    fn without_stage_two_the_item_projector_learns_in_stage_three() {
        let model = model(|c| c.item_stage.enabled = false);
        let parameters = model.user_parameters();
        assert!(parameters.contains_key("item_projector.weight"));
        check(&model, &parameters, || user_loss(&model));
    }

    #[test]
    fn fed_items_reach_later_slots_and_their_tokens_learn() {
        let model = model(|c| {
            c.item_stage.enabled = false;
            c.model.autoregressive = true;
            c.model.slots = 3;
            c.model.history = 0;
            c.user_stage.loss = TargetLoss::SampledSlots;
        });
        let parameters = model.user_parameters();
        assert!(parameters.contains_key("item_projector.weight"));
        check(&model, &parameters, || user_loss(&model));

        let slots = |fed: &[u32]| {
            let mut examples = users();
            examples[0].fed = fed.to_vec();
            model.slot_logits(&examples[..1]).unwrap().remove(0)
        };
        let (one, two) = (slots(&[0]), slots(&[0, 5]));
        assert_eq!((slots(&[]).len(), one.len(), two.len()), (1, 2, 3));
        let gap =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap(&one[1], &two[1]) < 1e-5, "a slot saw what comes after it");
        assert!(gap(&one[1], &slots(&[5])[1]) > 1e-6, "a slot did not see what was named");
    }

    #[test]
    fn a_users_number_stands_for_the_user_token() {
        let model = model(|c| {
            c.model.user_id_text = true;
            c.model.slot_user_token = false;
        });
        let parameters = model.user_parameters();
        assert!(!parameters.contains_key("user_projector.weight"));
        check(&model, &parameters, || user_loss(&model));
        let logits = |user| {
            let mut examples = users();
            examples[1].user = user;
            model.slot_logits(&examples[1..]).unwrap()
        };
        assert_ne!(logits(Some(2)), logits(Some(3)));
        assert_ne!(logits(Some(2)), logits(None));
    }

    #[test]
    fn gradients_of_the_item_stage_from_prompt_to_loss() {
        let model = model(|_| ());
        let examples = [
            ItemExample { items: vec![0, 3, 5], descriptions: vec![5, 0, 3] },
            ItemExample { items: vec![6, 1, 2], descriptions: vec![1, 2, 6] },
        ];
        check(&model, &model.item_parameters(), || model.item_loss(&examples).unwrap());
    }

    #[test]
    fn every_placement_runs_and_only_the_slots_of_their_own_are_trained() {
        for placement in [SlotPlacement::Response, SlotPlacement::Last, SlotPlacement::Prefix] {
            let model = model(|c| {
                c.model.slot_placement = placement;
                c.item_stage.enabled = placement != SlotPlacement::Prefix;
            });
            let parameters = model.user_parameters();
            assert_eq!(parameters.contains_key("slots"), placement != SlotPlacement::Last);
            let store = user_loss(&model).backward().unwrap();
            for (name, var) in &parameters {
                assert!(store.get(var).is_some(), "{placement:?}: {name}");
            }
        }
    }

    #[test]
    fn what_a_slot_sees_is_what_the_prompt_holds() {
        let model = model(|_| ());
        let logits = |change: fn(&mut UserExample)| {
            let mut examples = users();
            change(&mut examples[0]);
            model.slot_logits(&examples).unwrap()
        };
        let base = logits(|_| ());
        let differs = |other: &[Vec<Vec<f32>>], row: usize| {
            let gap = base[row][0].iter().zip(&other[row][0]).map(|(a, b)| (a - b).abs());
            gap.fold(0.0, f32::max) > 1e-6
        };
        // Targets are not part of the prompt; texts, shown items and context are.
        assert!(!differs(&logits(|e| e.targets = vec![6]), 0));
        let changes: [fn(&mut UserExample); 3] =
            [|e| e.texts = false, |e| e.shown.reverse(), |e| e.context = vec![1, 2]];
        for change in changes {
            let other = logits(change);
            assert!(differs(&other, 0));
            assert!(!differs(&other, 1), "another user's prompt changed");
        }
    }
}
