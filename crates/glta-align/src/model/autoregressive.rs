//! Ranks item by item: the token of the item that a slot names is fed to the next slot (the paper's
//! AR). The prompt is processed once, and each slot only adds its own token.

use candle_core::Tensor;
use glta_gllm::{Decoder, Ranked, decode};
use glta_llm::KvCache;

use super::hidden::embedded;
use super::logits::add_scaled;
use super::{Glta, NO_PROMPTS};
use crate::Result;
use crate::prompts::Prompts;
use crate::sampling::UserExample;

impl Glta {
    /// Returns the best `k` items for each example, chosen one after the other, without its
    /// excluded items.
    pub(crate) fn rank_one_by_one(
        &self,
        queries: &[(UserExample, Vec<u32>)],
        k: usize,
    ) -> Result<Vec<Vec<Ranked>>> {
        let mut examples: Vec<UserExample> = queries.iter().map(|(e, _)| e.clone()).collect();
        let base: Option<Vec<Vec<f32>>> = self.linear.as_ref().map(|linear| {
            examples.iter().map(|example| linear.score_items(&example.context)).collect()
        });
        let mix = self.mix()?;
        let mut slots = Slots::new(self, &examples)?;
        let mut lists: Vec<Vec<Ranked>> = vec![Vec::new(); examples.len()];
        for step in 0..k {
            let logits = slots.next(&examples)?;
            for (at, (logits, list)) in logits.into_iter().zip(&mut lists).enumerate() {
                // A list without further items is not extended.
                if list.len() < step {
                    continue;
                }
                let fed = &mut examples[at].fed;
                let taken = [queries[at].1.as_slice(), fed].concat();
                let mut logits = logits;
                if let Some(base) = &base {
                    add_scaled(&base[at], &mut logits, mix);
                }
                let best = decode(&[logits], &taken, 1, Decoder::FirstLogit)?;
                fed.extend(best.iter().map(|ranked| ranked.item));
                list.extend(best);
            }
        }
        Ok(lists)
    }
}

/// The state of a batch whose slots are computed one at a time.
struct Slots<'a> {
    model: &'a Glta,
    prompts: &'a Prompts,
    /// Nodes of the users, `(examples, d)`.
    nodes: Tensor,
    /// Soft tokens of the users, `(examples, hidden)`.
    user_tokens: Tensor,
    caches: Vec<KvCache>,
    /// Index of the next slot.
    at: usize,
}

impl<'a> Slots<'a> {
    fn new(model: &'a Glta, examples: &[UserExample]) -> Result<Self> {
        let prompts = model.prompts.as_ref().ok_or(NO_PROMPTS)?;
        let nodes = model.user_nodes(examples)?;
        let user_tokens = model.user_projector.forward(&nodes)?.detach();
        let caches = vec![prompts.language().llama.kv_cache(); examples.len()];
        Ok(Self { model, prompts, nodes, user_tokens, caches, at: 0 })
    }

    /// Computes the logits of the next slot, `(examples, items)`.
    fn next(&mut self, examples: &[UserExample]) -> Result<Vec<Vec<f32>>> {
        let (model, llama) = (self.model, &self.prompts.language().llama);
        let slot = self.at..self.at + 1;
        let inputs = model.slot_inputs(examples, &self.user_tokens, slot)?.detach();
        let (embeds, lengths) = if self.at == 0 {
            let soft = Tensor::cat(&[&self.user_tokens, &inputs], 0)?;
            let (rows, soft) = model.user_rows(self.prompts, examples, 1, soft)?;
            let batch = embedded(llama, &rows, &soft)?;
            (batch.embeds.detach(), batch.lengths)
        } else {
            (inputs.unsqueeze(1)?, vec![1; examples.len()])
        };
        self.at += 1;
        let prefix = self.prompts.user_prefix();
        let states = llama.extend_batch(&embeds, &lengths, prefix, &mut self.caches)?;
        let (b, seq, hidden) = states.dims3()?;
        let last = lengths.iter().zip(0..).map(|(&len, row)| (row * seq + len - 1) as u32);
        let last = Tensor::from_iter(last, &model.device)?;
        let states = states.reshape((b * seq, hidden))?.index_select(&last, 0)?;
        let residual =
            model.config.model.graph_residual.then(|| model.residual(self.nodes.clone()));
        Ok(model.head.logits(&states, residual.as_ref())?.detach().to_vec2()?)
    }
}
