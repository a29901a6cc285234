//! Implements both alignment stages for the training loop.

use glta_comm::Communicator;
use glta_core::{Search, search, stream};
use glta_gllm::{Ranked, decode};
use glta_projector::Parameters;
use rand::Rng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::config::TargetLoss;
use crate::data::RunData;
use crate::lists::{known_user, ndcg, validation, validation_users};
use crate::model::{Glta, add_scaled};
use crate::ranks::{BatchLoss, fair_share, gather_lists};
use crate::report::Mix;
use crate::sampling::{ItemExample, UserExample, item_examples, user_example};
use crate::trainer::Stage;
use crate::{Error, Result};

/// Number of prompts on which the matching accuracy is measured.
const MATCHED: usize = 64;

/// Stage 2, which aligns item tokens with item descriptions.
pub(crate) struct ItemStage<'a> {
    model: &'a Glta,
    parameters: Parameters,
    items: Vec<u32>,
    examples: Vec<ItemExample>,
    checked: Vec<ItemExample>,
}

impl<'a> ItemStage<'a> {
    pub(crate) fn new(model: &'a Glta, data: &RunData) -> Result<Self> {
        // An item without interactions has no trained node to align.
        let degrees = data.train.item_degrees();
        let items: Vec<u32> =
            (0..degrees.len() as u32).filter(|&i| degrees[i as usize] > 0).collect();
        let config = model.config();
        let per_prompt = config.item_stage.items;
        if items.len() < per_prompt {
            return Err(Error::Config {
                field: "item_stage.items".into(),
                problem: format!(
                    "a prompt needs {per_prompt} items, but only {} have training interactions",
                    items.len()
                ),
            });
        }
        let mut checked =
            item_examples(&items, per_prompt, &mut stream(config.seed, "item accuracy", &[]));
        checked.truncate(MATCHED);
        let parameters = model.item_parameters();
        Ok(Self { model, parameters, items, examples: Vec::new(), checked })
    }

    fn batch(&self, batch: usize) -> &[ItemExample] {
        let size = self.model.config().item_stage.train.batch_size;
        let start = batch * size;
        &self.examples[start..(start + size).min(self.examples.len())]
    }
}

impl Stage for ItemStage<'_> {
    fn name(&self) -> &'static str {
        "item"
    }

    fn metric(&self) -> &'static str {
        "accuracy"
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn begin_epoch(&mut self, epoch: usize) -> Result<usize> {
        let config = self.model.config();
        let mut rng = stream(config.seed, "item epoch", &[epoch as u64]);
        self.examples = item_examples(&self.items, config.item_stage.items, &mut rng);
        Ok(self.examples.len().div_ceil(config.item_stage.train.batch_size))
    }

    fn loss(&self, batch: usize, comm: &dyn Communicator) -> Result<BatchLoss> {
        let all = self.batch(batch);
        let own: Vec<ItemExample> = fair_share(comm, &self.model.item_lengths(all)?)
            .into_iter()
            .map(|n| all[n].clone())
            .collect();
        if own.is_empty() {
            return Ok(BatchLoss::OtherRanks);
        }
        Ok(BatchLoss::Part(self.model.item_loss(&own, all.len())?))
    }

    /// Returns the matching accuracy. The loss alone does not show whether a model has learned the
    /// order of the items or only which items are shown.
    fn evaluate(&self, comm: &dyn Communicator) -> Result<Option<f64>> {
        let size = self.model.config().item_stage.train.batch_size;
        let mut matches = 0;
        for batch in self.checked[comm.share(self.checked.len())].chunks(size) {
            matches += self.model.item_matches(batch)?;
        }
        let mut sum = [matches as f64];
        comm.all_reduce(&mut sum)?;
        let matches = sum[0];
        let slots = self.checked.len() * self.model.config().item_stage.items;
        Ok(Some(matches / slots as f64))
    }
}

/// Stage 3, which aligns users with their items.
pub(crate) struct UserStage<'a> {
    model: &'a Glta,
    data: &'a RunData,
    parameters: Parameters,
    epoch: usize,
    order: Vec<u32>,
}

impl<'a> UserStage<'a> {
    pub(crate) fn new(model: &'a Glta, data: &'a RunData) -> Self {
        let parameters = model.user_parameters();
        Self { model, data, parameters, epoch: 0, order: Vec::new() }
    }
}

impl Stage for UserStage<'_> {
    fn name(&self) -> &'static str {
        "user"
    }

    fn metric(&self) -> &'static str {
        "N@10"
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn begin_epoch(&mut self, epoch: usize) -> Result<usize> {
        let config = self.model.config();
        self.epoch = epoch;
        self.order = (0..self.data.users.len() as u32)
            .filter(|&user| self.data.train.items(user).len() > 1)
            .collect();
        self.order.shuffle(&mut stream(config.seed, "user epoch", &[epoch as u64]));
        Ok(self.order.len().div_ceil(config.user_stage.train.batch_size))
    }

    fn loss(&self, batch: usize, comm: &dyn Communicator) -> Result<BatchLoss> {
        let config = self.model.config();
        let size = config.user_stage.train.batch_size;
        let users = &self.order[batch * size..((batch + 1) * size).min(self.order.len())];
        let mut random = stream(config.seed, "user batch", &[self.epoch as u64, batch as u64]);
        let mut examples: Vec<UserExample> = users
            .iter()
            .filter_map(|&user| {
                user_example(
                    user,
                    self.data.train.items(user),
                    self.model.text_items(user),
                    config.model.history,
                    &config.user_stage,
                    config.texts.dropout,
                    &mut random,
                )
            })
            .collect();
        if examples.is_empty() {
            return Ok(BatchLoss::None);
        }
        let slots = config.model.slots;
        // Targets are drawn for the whole batch, so that they are the same for any number of ranks.
        let mut targets: Vec<Vec<Vec<u32>>> = Vec::with_capacity(examples.len());
        for example in &mut examples {
            targets.push(match config.user_stage.loss {
                TargetLoss::Multinomial => vec![example.targets.clone(); slots],
                TargetLoss::SampledSlots => {
                    let drawn = sampled_slots(&example.targets, slots, &mut random);
                    if config.model.autoregressive {
                        example.fed = drawn.iter().flatten().copied().take(slots - 1).collect();
                    }
                    drawn
                }
            });
        }
        let named = |targets: &[Vec<u32>]| targets.iter().filter(|t| !t.is_empty()).count();
        let all_named: usize = targets.iter().map(|targets| named(targets)).sum();
        // From here on, the rank only processes its own examples.
        let own = fair_share(comm, &self.model.user_lengths(&examples));
        let targets = own.iter().flat_map(|&n| std::mem::take(&mut targets[n])).collect::<Vec<_>>();
        let own_named = named(&targets);
        if own.is_empty() || own_named == 0 && all_named > 0 {
            return Ok(BatchLoss::OtherRanks);
        }
        let examples: Vec<UserExample> = own.iter().map(|&n| examples[n].clone()).collect();
        let mut masked = Vec::with_capacity(targets.len());
        for example in &examples {
            // Items that earlier slots named are masked.
            masked
                .extend((0..slots).map(|slot| example.fed[..slot.min(example.fed.len())].to_vec()));
        }
        let (hidden, residual) = self.model.user_hidden(&examples, slots)?;
        let offset = self.model.offset(&examples)?;
        let head = self.model.head();
        let (residual, offset) = (residual.as_ref(), offset.as_ref());
        let loss = head.loss_part(&hidden, residual, offset, &targets, &masked, all_named)?;
        Ok(BatchLoss::Part(loss))
    }

    fn evaluate(&self, comm: &dyn Communicator) -> Result<Option<f64>> {
        validation(self.model, self.data, comm)
    }
}

/// Chooses the factor of the correction with the best validation N@10. Returns `None` without a
/// linear model or without validation items. The factor of the model is then the only configured
/// one, or 1 if several are configured.
pub(crate) fn choose_mix(
    model: &Glta,
    data: &RunData,
    comm: &dyn Communicator,
) -> Result<Option<Mix>> {
    let config = model.config();
    let factors = &config.model.mix;
    let Some(linear) = model.linear().filter(|_| !data.valid.is_empty()) else {
        if let (Some(_), [factor]) = (model.linear(), &factors[..]) {
            model.set_mix(*factor)?;
        }
        return Ok(None);
    };
    let best = |found: Search<f64, ()>| {
        let best = found.best_trial().map(|best| (best.config, best.score));
        best.map(|(factor, validation)| Mix { factor, validation })
    };
    if config.model.autoregressive {
        // The named items determine the inputs of the next slots, so each factor needs its own
        // lists.
        return Ok(best(search(factors, |&factor| -> Result<(f64, ())> {
            model.set_mix(factor)?;
            let value = validation(model, data, comm)?;
            Ok((value.ok_or(Error::Internal("N@10 was not measured"))?, ()))
        })?));
    }
    let users = validation_users(data);
    let mut lists: Vec<Vec<Vec<Ranked>>> = vec![Vec::with_capacity(users.len()); factors.len()];
    for batch in users[comm.share(users.len())].chunks(config.user_stage.train.batch_size) {
        let examples: Vec<UserExample> =
            batch.iter().map(|&user| known_user(config, data, user)).collect();
        let logits = model.head_logits(&examples)?;
        let of_factors = examples.par_iter().zip(logits.examples()).map(|(example, slots)| {
            let base = linear.score_items(&example.context);
            let list = |&factor: &f64| {
                let mixed = slots.iter().map(|slot| {
                    let mut slot = slot.to_vec();
                    add_scaled(&base, &mut slot, factor as f32);
                    slot
                });
                let mixed: Vec<Vec<f32>> = mixed.collect();
                Ok(decode(&mixed, &example.context, 10, config.model.decoder)?)
            };
            factors.iter().map(list).collect::<Result<Vec<_>>>()
        });
        for of_factors in of_factors.collect::<Result<Vec<_>>>()? {
            lists.iter_mut().zip(of_factors).for_each(|(lists, list)| lists.push(list));
        }
    }
    let mut lists = lists.into_iter();
    let found = search(factors, |&factor| -> Result<(f64, ())> {
        let value = ndcg(&users, gather_lists(comm, lists.next().unwrap_or_default())?, data)?;
        tracing::info!(factor, validation = value, "correction of the linear model");
        Ok((value, ()))
    })?;
    Ok(best(found))
}

/// Draws one random target per slot, without replacement. If there are fewer targets than slots,
/// the last slots get none.
fn sampled_slots(targets: &[u32], slots: usize, rng: &mut impl Rng) -> Vec<Vec<u32>> {
    let mut drawn = targets.to_vec();
    drawn.shuffle(rng);
    (0..slots).map(|t| drawn.get(t).map(|&item| vec![item]).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_get_distinct_targets() {
        let mut random = stream(1, "test", &[]);
        let drawn = sampled_slots(&[4, 7, 9], 5, &mut random);
        let mut items: Vec<u32> = drawn.iter().flatten().copied().collect();
        items.sort_unstable();
        assert_eq!(items, [4, 7, 9]);
        assert_eq!(drawn.iter().filter(|t| t.is_empty()).count(), 2);
        assert_eq!(sampled_slots(&[4, 7, 9], 2, &mut random).len(), 2);
    }
}
