//! Computes logits and lists from hidden states, with the head and the linear model.

use candle_core::Tensor;
use glta_gllm::{Decoder, Ranked, decode};
use rayon::prelude::*;

use super::Glta;
use crate::Result;
use crate::sampling::UserExample;

impl Glta {
    /// Computes the linear model's logits for every slot of training examples, `(examples × slots,
    /// items)`. The logits of a user are those of a fit without the user. Returns `None` if stage 3
    /// is not trained on top of a linear model.
    pub(crate) fn offset(&self, examples: &[UserExample]) -> Result<Option<Tensor>> {
        let Some(linear) = self.linear.as_ref().filter(|_| self.corrects_linear()) else {
            return Ok(None);
        };
        let _span = tracing::debug_span!("linear").entered();
        let (b, n, items) = (examples.len(), self.config.model.slots, self.nodes.n_items());
        let rows = examples.par_iter().map(|example| match example.user {
            Some(user) => Ok(linear.score_without(user, &example.context)?),
            None => Ok(linear.score_items(&example.context)),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let rows = Tensor::from_vec(rows.concat(), (b, items), &self.device)?;
        let rows = rows.unsqueeze(1)?.broadcast_as((b, n, items))?.reshape((b * n, items))?;
        Ok(Some(rows))
    }

    /// Returns the best `k` items for each example, without its excluded items. Without a linear
    /// model, the logits of all items are never in memory at once. With a linear model, the logits
    /// of the batch are one matrix in memory.
    pub(crate) fn rank(
        &self,
        examples: &[UserExample],
        excluded: &[&[u32]],
        k: usize,
    ) -> Result<Vec<Vec<Ranked>>> {
        let (slots, decoder) = (self.config.model.slots, self.config.model.decoder);
        if self.linear.is_none() {
            let (hidden, residual) = self.user_hidden(examples, slots)?;
            let hidden = hidden.detach();
            return Ok(self.head.rank(&hidden, residual.as_ref(), slots, excluded, k, decoder)?);
        }
        let logits = self.slot_logits(examples)?;
        let lists = logits.examples().zip(excluded);
        lists.map(|(slots, excluded)| Ok(decode(&slots, excluded, k, decoder)?)).collect()
    }

    /// Computes the logits of every example's slots, including those of the linear model.
    pub(crate) fn slot_logits(&self, examples: &[UserExample]) -> Result<SlotLogits> {
        let mut logits = self.head_logits(examples)?;
        if let Some(linear) = &self.linear {
            let (mix, items) = (self.mix()?, logits.items);
            logits.examples_mut().zip(examples).for_each(|(slots, example)| {
                let base = linear.score_items(&example.context);
                slots.chunks_exact_mut(items).for_each(|slot| add_scaled(&base, slot, mix));
            });
        }
        Ok(logits)
    }

    /// Returns the log-probabilities of all items for each example, `(examples, items)`. They come
    /// from the first slot if the decoder uses only this slot or the model is autoregressive, and
    /// otherwise from the mean over the slots.
    pub(crate) fn log_probabilities(&self, examples: &[UserExample]) -> Result<Vec<Vec<f32>>> {
        let model = &self.config.model;
        let first = model.autoregressive || model.decoder == Decoder::FirstLogit;
        let mut logits = self.slot_logits(examples)?;
        let items = logits.items;
        let mean = |slots: &mut [f32]| {
            let slots = if first { &mut slots[..items] } else { slots };
            let share = 1.0 / (slots.len() / items) as f32;
            let mut mean = vec![0.0; items];
            for slot in slots.chunks_exact_mut(items) {
                log_softmax(slot);
                mean.iter_mut().zip(slot).for_each(|(mean, logit)| *mean += share * *logit);
            }
            mean
        };
        Ok(logits.examples_mut().map(mean).collect())
    }

    /// Returns the number of slots whose logits are needed. In an autoregressive model, this is one
    /// more than the number of items whose tokens are fed to slots.
    fn slots_read(&self, examples: &[UserExample]) -> usize {
        if self.config.model.autoregressive {
            1 + examples.iter().map(|e| e.fed.len()).max().unwrap_or(0)
        } else {
            self.config.model.slots
        }
    }

    /// Computes the head's logits of every example's slots, without the linear model.
    pub(crate) fn head_logits(&self, examples: &[UserExample]) -> Result<SlotLogits> {
        let slots = self.slots_read(examples);
        let (hidden, residual) = self.user_hidden(examples, slots)?;
        let logits = self.head.logits(&hidden.detach(), residual.as_ref())?;
        let values = logits.flatten_all()?.to_vec1()?;
        Ok(SlotLogits { values, slots, items: self.nodes.n_items() })
    }
}

/// Logits of the slots of a batch, `(examples × slots, items)`.
pub(crate) struct SlotLogits {
    values: Vec<f32>,
    slots: usize,
    items: usize,
}

impl SlotLogits {
    /// Returns the logits of each example's slots, `(slots, items)`.
    pub(crate) fn examples(&self) -> impl IndexedParallelIterator<Item = Vec<&[f32]>> {
        let examples = self.values.par_chunks_exact(self.slots * self.items);
        examples.map(|example| example.chunks_exact(self.items).collect())
    }

    /// Returns the logits of each example's slots, concatenated.
    fn examples_mut(&mut self) -> impl IndexedParallelIterator<Item = &mut [f32]> {
        self.values.par_chunks_exact_mut(self.slots * self.items)
    }
}

/// Replaces the logits of a slot by `base + factor · logits`, where `base` contains the logits of
/// the linear model.
pub(crate) fn add_scaled(base: &[f32], slot: &mut [f32], factor: f32) {
    slot.iter_mut().zip(base).for_each(|(logit, base)| *logit = base + factor * *logit);
}

/// Converts logits to log-probabilities in place.
pub(crate) fn log_softmax(logits: &mut [f32]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
    let normaliser = largest + sum.ln() as f32;
    logits.iter_mut().for_each(|logit| *logit -= normaliser);
}
