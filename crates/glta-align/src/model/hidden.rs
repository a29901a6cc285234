//! From examples to the hidden states of their slots: tokens, prompts, the frozen
//! language model.

use candle_core::{D, Tensor};
use glta_gllm::GraphResidual;
use glta_llm::{ForwardOptions, Prefix};
use glta_projector::{Piece, splice};

use super::Glta;
use crate::config::{Backbone, Recompute, SlotPlacement, UserNode};
use crate::prompts::{Prompts, Row};
use crate::sampling::{ItemExample, UserExample};
use crate::{Error, Result};

/// Activations that may be kept for the backward pass before layers are
/// recomputed instead.
const ACTIVATION_BUDGET: usize = 3 << 30;

impl Glta {
    /// Hidden states of the slots of stage-2 prompts: `(examples × items, hidden)`.
    pub(super) fn item_hidden(&self, examples: &[ItemExample]) -> Result<Tensor> {
        let prompts = self.prompts.as_ref().ok_or(Error::NoLlm)?;
        let per = examples.first().map_or(0, |e| e.items.len());
        let items: Vec<u32> = examples.iter().flat_map(|e| e.items.iter().copied()).collect();
        let tokens = self.item_projector.forward(&self.nodes.items(&items)?)?;
        let (b, hidden) = (examples.len(), tokens.dim(D::Minus1)?);
        let slots = self.slots.narrow(0, 0, per)?.unsqueeze(0)?;
        let inputs = if self.config.item_stage.slot_item_token {
            slots.broadcast_add(&tokens.reshape((b, per, hidden))?)?
        } else {
            slots.broadcast_as((b, per, hidden))?.contiguous()?
        };
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
}

/// Rows scaled to a root mean square of one, like a language model's final norm
/// does, so that the head starts from the same scale without it.
fn unit_rms(rows: &Tensor) -> Result<Tensor> {
    let rms = (rows.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    Ok(rows.broadcast_div(&rms)?)
}
