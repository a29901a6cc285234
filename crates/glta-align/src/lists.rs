//! Ranks items for users with any kind of model.

use std::sync::Arc;

use glta_comm::Communicator;
use glta_gllm::{Decoder, Ranked};
use glta_linear::LinearModel;
use glta_metrics::{Metric, evaluate_rankings};
use rayon::prelude::*;

use crate::config::Config;
use crate::data::RunData;
use crate::model::{Glta, log_softmax};
use crate::ranks::gather_lists;
use crate::sampling::{UserExample, inference_example};
use crate::{Error, Result};

/// An example, and the items that its list must not contain.
pub(crate) type Query = (UserExample, Vec<u32>);

/// A model that ranks items for users.
pub(crate) trait Lists {
    fn config(&self) -> &Config;

    /// Returns the best `k` items for each example, without its excluded items.
    fn lists(&self, queries: &[Query], k: usize) -> Result<Vec<Vec<Ranked>>>;

    /// Returns the log-probabilities of all items for each example, `(examples, items)`.
    fn log_probabilities(&self, examples: &[UserExample]) -> Result<Vec<Vec<f32>>>;
}

impl Lists for Glta {
    fn config(&self) -> &Config {
        self.config()
    }

    fn lists(&self, queries: &[Query], k: usize) -> Result<Vec<Vec<Ranked>>> {
        let config = self.config();
        // Longer lists are not possible. A list that is made item by item would run prompts for
        // them.
        let k = k.min(self.n_items());
        let mut lists = Vec::with_capacity(queries.len());
        for batch in queries.chunks(config.user_stage.train.batch_size) {
            if config.model.autoregressive {
                lists.extend(self.rank_one_by_one(batch, k)?);
                continue;
            }
            let examples: Vec<UserExample> = batch.iter().map(|(e, _)| e.clone()).collect();
            let excluded: Vec<&[u32]> = batch.iter().map(|(_, e)| e.as_slice()).collect();
            lists.extend(self.rank(&examples, &excluded, k)?);
        }
        Ok(lists)
    }

    fn log_probabilities(&self, examples: &[UserExample]) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(examples.len());
        for batch in examples.chunks(self.config().user_stage.train.batch_size) {
            all.extend(self.log_probabilities(batch)?);
        }
        Ok(all)
    }
}

/// The linear model as the only source of scores: there is no prompt path, or its factor is 0.
#[derive(Debug, Clone)]
pub(crate) struct LinearLists {
    config: Config,
    linear: Arc<LinearModel>,
}

impl LinearLists {
    pub(crate) fn new(config: Config, linear: Arc<LinearModel>) -> Self {
        Self { config, linear }
    }

    pub(crate) fn linear(&self) -> &LinearModel {
        &self.linear
    }

    pub(crate) fn with_decoder(&self, decoder: Decoder) -> Self {
        let mut lists = self.clone();
        lists.config.model.decoder = decoder;
        lists
    }
}

impl Lists for LinearLists {
    fn config(&self) -> &Config {
        &self.config
    }

    fn lists(&self, queries: &[Query], k: usize) -> Result<Vec<Vec<Ranked>>> {
        let list = |(example, excluded): &Query| {
            let mut excluded = excluded.clone();
            excluded.sort_unstable();
            let skip = |item: u32| excluded.binary_search(&item).is_ok();
            self.linear.top_log_probabilities(&example.context, k, skip)
        };
        Ok(queries.par_iter().map(list).collect())
    }

    fn log_probabilities(&self, examples: &[UserExample]) -> Result<Vec<Vec<f32>>> {
        let scores = |example: &UserExample| {
            let mut scores = self.linear.score_items(&example.context);
            log_softmax(&mut scores);
            scores
        };
        Ok(examples.par_iter().map(scores).collect())
    }
}

/// Returns the best `k` items for known users, without the excluded items of each.
pub(crate) fn rank_users(
    model: &dyn Lists,
    data: &RunData,
    users: impl Iterator<Item = (u32, Vec<u32>)>,
    k: usize,
) -> Result<Vec<Vec<Ranked>>> {
    let config = model.config();
    let queries: Vec<Query> =
        users.map(|(user, excluded)| (known_user(config, data, user), excluded)).collect();
    model.lists(&queries, k)
}

/// Returns the example of a known user for whom a list is made.
pub(crate) fn known_user(config: &Config, data: &RunData, user: u32) -> UserExample {
    inference_example(Some(user), data.train.items(user), config.model.history, config.seed)
}

/// Returns N@10 on the validation items, where training items are masked. Returns `None` without
/// validation items. Ranks divide the users.
pub(crate) fn validation(
    model: &dyn Lists,
    data: &RunData,
    comm: &dyn Communicator,
) -> Result<Option<f64>> {
    if data.valid.is_empty() {
        return Ok(None);
    }
    let users = validation_users(data);
    let own = &users[comm.share(users.len())];
    let queries = own.iter().map(|&user| (user, data.train.items(user).to_vec()));
    let rankings = rank_users(model, data, queries, 10)?;
    ndcg(&users, gather_lists(comm, rankings)?, data).map(Some)
}

/// Returns the users with validation items.
pub(crate) fn validation_users(data: &RunData) -> Vec<u32> {
    (0..data.users.len() as u32).filter(|&user| !data.valid.items(user).is_empty()).collect()
}

/// Returns N@10 of the users' lists on the validation items.
pub(crate) fn ndcg(users: &[u32], rankings: Vec<Vec<Ranked>>, data: &RunData) -> Result<f64> {
    let rankings: Vec<(u32, Vec<u32>)> = users
        .iter()
        .zip(rankings)
        .map(|(&user, list)| (user, list.iter().map(|r| r.item).collect()))
        .collect();
    let report = evaluate_rankings(&rankings, &data.valid, &[10])?;
    report.get(Metric::Ndcg, 10).ok_or(Error::Internal("N@10 was not measured"))
}
