//! Computes the hidden states of slots: converts examples to soft tokens and prompts, and runs them
//! through the frozen language model.

use std::ops::Range;

use candle_core::{D, DType, Tensor};
use glta_gllm::GraphResidual;
use glta_llm::{ForwardOptions, Llama, Prefix};
use glta_projector::{Piece, SoftBatch, splice_with};

use super::{Glta, NO_PROMPTS};
use crate::Result;
use crate::config::{Backbone, ItemSlots, Recompute, SlotPlacement, UserNode};
use crate::prompts::{Prompts, Row};
use crate::sampling::{ItemExample, UserExample};

/// Size of the activations in bytes above which layers are recomputed in the backward pass on the
/// CPU. On a GPU, the limit is half of its free memory. Recomputation gives the same bits.
const ACTIVATION_BUDGET: usize = 3 << 30;

impl Glta {
    /// Computes the hidden states of the slots of stage-2 prompts, `(examples × items, hidden)`.
    pub(super) fn item_hidden(&self, examples: &[ItemExample]) -> Result<Tensor> {
        let prompts = self.prompts.as_ref().ok_or(NO_PROMPTS)?;
        let per = examples.first().map_or(0, |e| e.items.len());
        let items: Vec<u32> = examples.iter().flat_map(|e| e.items.iter().copied()).collect();
        let tokens = self.item_projector.forward(&self.nodes.items(&items)?)?;
        let (b, hidden) = (examples.len(), tokens.dim(D::Minus1)?);
        let slots: Vec<u32> = (0..per as u32).collect();
        let mut inputs = self.slot_embeddings(slots, b)?;
        if self.config.item_stage.slots == ItemSlots::Token {
            inputs = (inputs + tokens.reshape((b, per, hidden))?)?;
        }
        let soft = Tensor::cat(&[&tokens, &inputs.reshape((b * per, hidden))?], 0)?;
        let rows = examples
            .iter()
            .zip(0u32..)
            .map(|(example, row)| {
                let per = per as u32;
                let own: Vec<u32> = (row * per..(row + 1) * per).collect();
                let slots: Vec<u32> = own.iter().map(|token| token + items.len() as u32).collect();
                prompts.item_row(example, &own, self.own_slots(&slots))
            })
            .collect::<Result<Vec<_>>>()?;
        self.run(prompts, prompts.item_prefix()?, &rows, &soft)
    }

    fn own_slots<'a>(&self, slots: &'a [u32]) -> &'a [u32] {
        if self.config.model.slot_placement == SlotPlacement::Last { &[] } else { slots }
    }

    /// Computes the hidden states of the users' first `n` slots, `(examples × n, hidden)`, and the
    /// graph residual if it is enabled.
    pub(crate) fn user_hidden(
        &self,
        examples: &[UserExample],
        n: usize,
    ) -> Result<(Tensor, Option<GraphResidual>)> {
        let (model, b) = (&self.config.model, examples.len());
        let nodes = self.user_nodes(examples)?;
        let user_tokens = self.user_projector.forward(&nodes)?;
        let inputs = self.slot_inputs(examples, &user_tokens, 0..n)?;
        let z = match &self.prompts {
            Some(prompts) if self.config.backbone != Backbone::None => {
                let soft = Tensor::cat(&[&user_tokens, &inputs], 0)?;
                let (rows, soft) = self.user_rows(prompts, examples, n, soft)?;
                self.run(prompts, prompts.user_prefix(), &rows, &soft)?
            }
            _ => unit_rms(&inputs)?,
        };
        let residual = model
            .graph_residual
            .then(|| -> Result<GraphResidual> {
                let d = self.nodes.dim();
                let users = nodes.unsqueeze(1)?.broadcast_as((b, n, d))?.reshape((b * n, d))?;
                Ok(self.residual(users))
            })
            .transpose()?;
        Ok((z, residual))
    }

    /// Returns the graph residual of user nodes, `(rows, d)`: their products with the item nodes.
    pub(super) fn residual(&self, users: Tensor) -> GraphResidual {
        GraphResidual { users, items: self.nodes.all_items().clone() }
    }

    /// Returns the nodes from which user tokens are projected, `(examples, d)`.
    pub(super) fn user_nodes(&self, examples: &[UserExample]) -> Result<Tensor> {
        match self.config.model.user_node {
            UserNode::Context => self.nodes.contexts(examples.iter().map(|e| e.context.as_slice())),
            UserNode::Embedding => self
                .nodes
                .users(examples.iter().map(|example| (example.user, example.context.as_slice()))),
        }
    }

    /// Computes the inputs of some of the users' slots, `(examples × slots, hidden)`. An input is
    /// the vector of the slot, plus the user token if enabled, plus the token of the item that the
    /// previous slot named.
    pub(super) fn slot_inputs(
        &self,
        examples: &[UserExample],
        user_tokens: &Tensor,
        slots: Range<usize>,
    ) -> Result<Tensor> {
        let (model, b, n) = (&self.config.model, examples.len(), slots.len());
        // Slots after the trained ones use the vector of the last one.
        let last = model.slots.saturating_sub(1);
        let index: Vec<u32> = slots.clone().map(|slot| slot.min(last) as u32).collect();
        let mut inputs = self.slot_embeddings(index, b)?;
        if model.slot_user_token {
            inputs = inputs.broadcast_add(&user_tokens.unsqueeze(1)?)?;
        }
        let inputs = inputs.reshape((b * n, ()))?;
        Ok(match self.fed_tokens(examples, slots)? {
            Some(fed) => (inputs + fed)?,
            None => inputs,
        })
    }

    /// Returns the learned vectors of the slots for each example, `(examples, slots, hidden)`.
    fn slot_embeddings(&self, slots: Vec<u32>, examples: usize) -> Result<Tensor> {
        let (n, hidden) = (slots.len(), self.slots.dim(1)?);
        let own = self.slots.index_select(&Tensor::new(slots, &self.device)?, 0)?.unsqueeze(0)?;
        // The conversion to f32 is separate for each example, so that the sum of gradients is in
        // f64.
        Ok(own.broadcast_as((examples, n, hidden))?.to_dtype(DType::F32)?)
    }

    /// Returns the soft tokens of items, `(items, hidden)`. In stage 3, they are frozen if stage 2
    /// was trained.
    fn item_tokens(&self, items: &[u32]) -> Result<Tensor> {
        let tokens = self.item_projector.forward(&self.nodes.items(items)?)?;
        Ok(if self.config.item_stage.enabled { tokens.detach() } else { tokens })
    }

    /// Returns the tokens of the items that earlier slots named, as addends to the inputs of slots,
    /// `(examples × slots, hidden)`.
    fn fed_tokens(&self, examples: &[UserExample], slots: Range<usize>) -> Result<Option<Tensor>> {
        // An item that is fed to two examples has a token for each, so that their gradients are
        // summed in the weight.
        let items: Vec<u32> = examples.iter().flat_map(|e| e.fed.iter().copied()).collect();
        if items.is_empty() || slots.end < 2 {
            return Ok(None);
        }
        let tokens = self.item_tokens(&items)?;
        let none = Tensor::zeros((1, tokens.dim(1)?), tokens.dtype(), &self.device)?;
        let rows = Tensor::cat(&[&none, &tokens], 0)?;
        let mut index = Vec::with_capacity(examples.len() * slots.len());
        let mut first = 1;
        for e in examples {
            let before = |slot: usize| slot.checked_sub(1).filter(|&at| at < e.fed.len());
            index.extend(slots.clone().map(|slot| before(slot).map_or(0, |at| first + at as u32)));
            first += e.fed.len() as u32;
        }
        Ok(Some(rows.index_select(&Tensor::new(index, &self.device)?, 0)?))
    }

    /// Renders the prompts of users up to their first `n` slots. `soft` contains the user tokens,
    /// then the slot inputs. Returns the prompts, and `soft` with the item tokens appended.
    pub(super) fn user_rows(
        &self,
        prompts: &Prompts,
        examples: &[UserExample],
        n: usize,
        soft: Tensor,
    ) -> Result<(Vec<Row>, Tensor)> {
        let (b, n) = (examples.len() as u32, n as u32);
        // As for the fed tokens, an item has a token for each example.
        let shown: Vec<u32> = examples.iter().flat_map(|e| e.shown.iter().copied()).collect();
        let mut next_item = soft.dim(0)? as u32;
        let soft = if shown.is_empty() {
            soft
        } else {
            Tensor::cat(&[&soft, &self.item_tokens(&shown)?], 0)?
        };
        let mut rows = Vec::with_capacity(examples.len());
        for (example, r) in examples.iter().zip(0u32..) {
            let items: Vec<u32> = (next_item..).take(example.shown.len()).collect();
            next_item += items.len() as u32;
            let slots: Vec<u32> = (b + r * n..b + (r + 1) * n).collect();
            rows.push(prompts.user_row(example, r, &items, self.own_slots(&slots), n as usize)?);
        }
        Ok((rows, soft))
    }

    /// Runs prompts through the language model and returns the hidden states of the slots.
    fn run(
        &self,
        prompts: &Prompts,
        prefix: Option<&Prefix>,
        rows: &[Row],
        soft: &Tensor,
    ) -> Result<Tensor> {
        let llama = &prompts.language().llama;
        let batch = embedded(llama, rows, soft)?;
        let (b, seq, hidden) = batch.embeds.dims3()?;
        let recompute = match self.config.model.recompute {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => {
                let c = llama.config();
                let per_token = c.num_hidden_layers * (8 * hidden + 3 * c.intermediate_size) * 4;
                let budget = llama.free_memory()?.map_or(ACTIVATION_BUDGET, |free| free / 2);
                b * seq * per_token > budget
            }
        };
        let options = ForwardOptions { prefix, recompute };
        let slots = |(row, prompt): (usize, &Row)| {
            prompt.slots.iter().map(|&at| (row, at)).collect::<Vec<_>>()
        };
        let slots: Vec<(usize, usize)> = rows.iter().enumerate().flat_map(slots).collect();
        Ok(llama.hidden_states_at(&batch.embeds, &batch.lengths, &slots, &options)?)
    }
}

/// Converts prompts to input embeddings.
pub(super) fn embedded(llama: &Llama, rows: &[Row], soft: &Tensor) -> Result<SoftBatch> {
    let pieces: Vec<Vec<Piece>> = rows.iter().map(|row| row.pieces.clone()).collect();
    let tensor = |e: glta_llm::Error| candle_core::Error::Msg(e.to_string());
    let embed = |ids: &[u32]| llama.embed(ids).map_err(tensor);
    let gather = |bank: &Tensor, index: &[u32]| llama.rows(bank, index).map_err(tensor);
    Ok(splice_with(&pieces, soft, embed, gather)?)
}

/// Scales rows to a root mean square of one. The final norm of a language model does the same, so
/// the head starts at the same scale with and without a language model.
fn unit_rms(rows: &Tensor) -> Result<Tensor> {
    let rms = (rows.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    Ok(rows.broadcast_div(&rms)?)
}
