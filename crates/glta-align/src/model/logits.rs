//! From hidden states to logits and lists: head, linear item model, and how they are mixed.

use candle_core::Tensor;
use glta_gllm::{Decoder, Ranked, decode};
use rayon::prelude::*;

use super::Glta;
use crate::Result;
use crate::sampling::UserExample;

impl Glta {
    /// The linear model's logits for every slot of training examples, without the users
    /// they belong to: `(examples × slots, items)`.
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

    /// The best `k` items for each example, leaving out its excluded items. Without a
    /// linear model the logits of all items are never there at once.
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
        let lists = logits.iter().zip(excluded);
        Ok(lists
            .map(|(slots, excluded)| decode(slots, excluded, k, decoder))
            .collect::<std::result::Result<_, _>>()?)
    }

    /// Logits of every example's slots: one `slots × items` block each.
    pub(crate) fn slot_logits(&self, examples: &[UserExample]) -> Result<Vec<Vec<Vec<f32>>>> {
        let (corrections, mix) = (self.head_logits(examples)?, self.mix()?);
        let Some(linear) = &self.linear else {
            return Ok(corrections);
        };
        let both = examples.par_iter().zip(corrections);
        Ok(both.map(|(e, slots)| mixed(&linear.score_items(&e.context), &slots, mix)).collect())
    }

    /// Log-probabilities of all items for each example: those of the first slot where
    /// the decoder reads no other or the slots follow each other, else their mean over
    /// the slots.
    pub(crate) fn log_probabilities(&self, examples: &[UserExample]) -> Result<Vec<Vec<f32>>> {
        let model = &self.config.model;
        let first = model.autoregressive || model.decoder == Decoder::FirstLogit;
        let mut logits = self.slot_logits(examples)?;
        let mean = |slots: &mut Vec<Vec<f32>>| {
            slots.truncate(if first { 1 } else { slots.len() });
            slots.iter_mut().for_each(|slot| log_softmax(slot));
            let share = 1.0 / slots.len() as f32;
            let mut mean = vec![0.0; self.nodes.n_items()];
            for slot in slots {
                mean.iter_mut().zip(slot).for_each(|(mean, logit)| *mean += share * *logit);
            }
            mean
        };
        Ok(logits.par_iter_mut().map(mean).collect())
    }

    /// Slots whose logits are wanted: an autoregressive model has one more than items
    /// were fed.
    fn slots_read(&self, examples: &[UserExample]) -> usize {
        match self.config.model.autoregressive {
            true => 1 + examples.iter().map(|e| e.fed.len()).max().unwrap_or(0),
            false => self.config.model.slots,
        }
    }

    /// Logits of every example's slots as the head has them, without the linear model.
    pub(crate) fn head_logits(&self, examples: &[UserExample]) -> Result<Vec<Vec<Vec<f32>>>> {
        let slots = self.slots_read(examples);
        let (hidden, residual) = self.user_hidden(examples, slots)?;
        let logits: Vec<Vec<f32>> =
            self.head.logits(&hidden.detach(), residual.as_ref())?.to_vec2()?;
        let mut rows = logits.into_iter();
        Ok(examples.iter().map(|_| rows.by_ref().take(slots).collect()).collect())
    }
}

/// Logits to log-probabilities.
pub(crate) fn log_softmax(logits: &mut [f32]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
    let normaliser = largest + sum.ln() as f32;
    logits.iter_mut().for_each(|logit| *logit -= normaliser);
}

/// The linear model's logits plus `factor` times each slot's.
pub(crate) fn mixed(base: &[f32], slots: &[Vec<f32>], factor: f32) -> Vec<Vec<f32>> {
    let mix = |slot: &Vec<f32>| base.iter().zip(slot).map(|(b, c)| b + factor * c).collect();
    slots.iter().map(mix).collect()
}
