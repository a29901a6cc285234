use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use glta_comm::Communicator;
use glta_gllm::{Decoder, Ranked};
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};

use crate::artifact::{Finished, load, load_data};
use crate::data::{ItemRecord, RunData};
use crate::language::LanguageModel;
use crate::lists::{Query, known_user, rank_users, validation};
use crate::sampling::{UserExample, inference_example};
use crate::trained::Model;
use crate::{Config, Error, Result};

/// A trained recommender.
///
/// Every recommendation is an item of the catalogue that the person does not
/// have yet. Answers do not depend on what else is asked in the same batch.
///
/// ```
/// # use glta_align::{Backbone, Config, Recommender, Run, RunData};
/// # use glta_data::{Dataset, ShopConfig, Split, SplitConfig, TextConfig};
/// # let shop = Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() })?;
/// # let split = Split::new(&shop, &SplitConfig::default())?;
/// # let data = RunData::new(&shop, &split, &TextConfig::default())?;
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("shop");
/// # let config = Config { backbone: Backbone::None, ..Config::default() };
/// # Run::create(&dir, data, config)?.fit(None)?;
/// let recommender = Recommender::open(&dir)?;
/// let user = recommender.user("7").ok_or("user 7 is not known")?;
/// for best in recommender.recommend(user, 3)? {
///     println!("{:.2} {}", best.score, best.record.title);
/// }
/// // Someone new, by the catalogue's own ids.
/// let item = recommender.item("article-3").ok_or("article-3 is not known")?;
/// let best = recommender.recommend_for_items(&[item], 3)?;
/// assert!(best.len() == 3 && best.iter().all(|b| b.item != item));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Recommender {
    model: Model,
    data: Arc<RunData>,
    ids: Arc<Ids>,
}

/// Dense ids by raw ids.
#[derive(Debug)]
struct Ids {
    users: HashMap<String, u32>,
    items: HashMap<String, u32>,
}

/// A recommended item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recommendation<'a> {
    /// Dense item id.
    pub item: u32,
    /// Log-probability among all items.
    pub score: f32,
    /// The item's raw id, title and text.
    pub record: &'a ItemRecord,
}

impl Recommender {
    pub(crate) fn new(model: Model, data: Arc<RunData>) -> Self {
        let users = data.users.iter().cloned().zip(0..).collect();
        let items = data.items.iter().map(|item| item.raw_id.clone()).zip(0..).collect();
        Self { model, data, ids: Arc::new(Ids { users, items }) }
    }

    /// Opens the recommender that a finished [`Run`](crate::Run) saved in `dir`, where no
    /// prompt is run: the linear item model alone, by configuration or because
    /// validation chose the factor 0 for the path through the prompt, or a run without a
    /// language model.
    ///
    /// # Errors
    /// [`Error::NoLlm`] for a run that needs its language model, a run that has not
    /// ended, damaged files.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::opened(dir.as_ref(), None)
    }

    /// [`open`](Self::open) for any run. `language` must be the checkpoint that it was
    /// trained with, loaded with the `llm` options of [`Config::of_run`]; prompts are
    /// those that the run recorded.
    ///
    /// # Errors
    /// A run that has not ended, damaged files, [`Error::OtherCheckpoint`], or one that
    /// was loaded with another number of layers.
    pub fn open_with(dir: impl AsRef<Path>, language: &LanguageModel) -> Result<Self> {
        Self::opened(dir.as_ref(), Some(language))
    }

    fn opened(dir: &Path, language: Option<&LanguageModel>) -> Result<Self> {
        let data = Arc::new(load_data(dir)?);
        let Finished { model, .. } = load(dir, &data, language)?;
        Ok(Self::new(model, data))
    }

    /// The same model, whose slots are read by another decoder.
    pub fn with_decoder(&self, decoder: Decoder) -> Self {
        let model = match &self.model {
            Model::Linear(lists) => Model::Linear(Box::new(lists.with_decoder(decoder))),
            Model::Prompt(model) => Model::Prompt(Box::new(model.with_decoder(decoder))),
        };
        Self { model, data: Arc::clone(&self.data), ids: Arc::clone(&self.ids) }
    }

    /// N@10 on the run's validation items, training items left out: what training
    /// watched, here of this decoder. `None` for a run without validation items. Every
    /// rank of `comm` calls it and gets the same.
    ///
    /// # Errors
    /// A failed rank; a language model's pass that fails.
    pub fn validation(&self, comm: &dyn Communicator) -> Result<Option<f64>> {
        validation(self.model.lists(), &self.data, comm)
    }

    /// The configuration it was trained with.
    pub fn config(&self) -> &Config {
        self.model.lists().config()
    }

    /// The catalogue, by dense item id.
    pub fn items(&self) -> &[ItemRecord] {
        &self.data.items
    }

    /// Raw user ids, by dense user id.
    pub fn users(&self) -> &[String] {
        &self.data.users
    }

    /// Dense id of a raw user id.
    pub fn user(&self, raw_id: &str) -> Option<u32> {
        self.ids.users.get(raw_id).copied()
    }

    /// Dense id of a raw item id.
    pub fn item(&self, raw_id: &str) -> Option<u32> {
        self.ids.items.get(raw_id).copied()
    }

    /// What the user is known to have, ascending.
    ///
    /// # Errors
    /// An unknown user.
    pub fn history(&self, user: u32) -> Result<Vec<u32>> {
        self.check_user(user)?;
        Ok(self.data.seen(user))
    }

    /// The best `k` items for a user of the training data; fewer only when no
    /// item is left.
    ///
    /// # Errors
    /// An unknown user.
    pub fn recommend(&self, user: u32, k: usize) -> Result<Vec<Recommendation<'_>>> {
        Ok(self.recommend_batch(&[user], k)?.pop().unwrap_or_default())
    }

    /// [`recommend`](Self::recommend) for many users: one list each, in order.
    ///
    /// # Errors
    /// An unknown user.
    pub fn recommend_batch(&self, users: &[u32], k: usize) -> Result<Vec<Vec<Recommendation<'_>>>> {
        users.iter().try_for_each(|&user| self.check_user(user))?;
        let queries = users.iter().map(|&user| (user, self.data.seen(user)));
        let lists = rank_users(self.model.lists(), &self.data, queries, k)?;
        Ok(self.records(lists))
    }

    /// [`recommend_batch`](Self::recommend_batch) from `items` alone, such as those
    /// that are new, as if there were no others.
    ///
    /// # Errors
    /// An unknown user or item.
    pub fn recommend_among(
        &self,
        users: &[u32],
        items: &[u32],
        k: usize,
    ) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let known = self.data.items.len();
        let mut others = vec![true; known];
        for &item in items {
            *others.get_mut(item as usize).ok_or(Error::UnknownItem { item, items: known })? =
                false;
        }
        let others = |seen: Vec<u32>| {
            let others = others.iter().zip(0u32..).filter(|(other, _)| **other);
            others.map(|(_, item)| item).chain(seen).collect()
        };
        let mut lists = Vec::with_capacity(users.len());
        // The excluded items are nearly the catalogue for each user.
        for users in users.chunks(self.config().user_stage.train.batch_size) {
            users.iter().try_for_each(|&user| self.check_user(user))?;
            let queries = users.iter().map(|&user| (user, others(self.data.seen(user))));
            lists.extend(rank_users(self.model.lists(), &self.data, queries, k)?);
        }
        Ok(self.records(lists))
    }

    /// The best `k` items for a person never seen in training, who has `items`
    /// (in any order; repeats count once).
    ///
    /// # Errors
    /// No item, or an unknown one.
    pub fn recommend_for_items(&self, items: &[u32], k: usize) -> Result<Vec<Recommendation<'_>>> {
        Ok(self.recommend_for_items_batch(&[items], k)?.pop().unwrap_or_default())
    }

    /// [`recommend_for_items`](Self::recommend_for_items) for many people: one
    /// list each, in order.
    ///
    /// # Errors
    /// A person without items, or an unknown item.
    pub fn recommend_for_items_batch(
        &self,
        people: &[impl AsRef<[u32]>],
        k: usize,
    ) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let config = self.config();
        let queries = people
            .iter()
            .map(|items| {
                let mut items = items.as_ref().to_vec();
                items.sort_unstable();
                items.dedup();
                if items.is_empty() {
                    return Err(Error::NoItems);
                }
                let known = self.data.items.len();
                if let Some(&item) = items.iter().find(|&&item| item as usize >= known) {
                    return Err(Error::UnknownItem { item, items: known });
                }
                let example = inference_example(None, &items, config.model.history, config.seed);
                Ok((example, items))
            })
            .collect::<Result<Vec<Query>>>()?;
        Ok(self.records(self.model.lists().lists(&queries, k)?))
    }

    fn records(&self, lists: Vec<Vec<Ranked>>) -> Vec<Vec<Recommendation<'_>>> {
        let record = |ranked: Ranked| Recommendation {
            item: ranked.item,
            score: ranked.score,
            record: &self.data.items[ranked.item as usize],
        };
        lists.into_iter().map(|list| list.into_iter().map(record).collect()).collect()
    }

    fn check_user(&self, user: u32) -> Result<()> {
        let users = self.data.users.len();
        if user as usize >= users {
            return Err(Error::UnknownUser { user, users });
        }
        Ok(())
    }
}

/// Ranks users of the training data from their training items, so that `evaluate` and
/// tables treat a recommender like any other model:
///
/// ```no_run
/// # use glta_align::{Recommender, RunData};
/// # use glta_data::Split;
/// # use glta_metrics::{EvaluationConfig, evaluate};
/// # fn test(recommender: &Recommender, split: &Split) -> glta_metrics::Result<()> {
/// let masked = [&split.train, &split.valid];
/// let report = evaluate(recommender, &split.test, &masked, &EvaluationConfig::default())?;
/// # Ok(())
/// # }
/// ```
///
/// Its lists are those of its decoder. The scores of all items, which no list needs, are
/// log-probabilities: of the first slot under [`Decoder::FirstLogit`] and where slots are
/// autoregressive, else their mean over the slots.
impl Scorer for Recommender {
    fn n_items(&self) -> usize {
        self.data.items.len()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        if out.dim() != (users.len(), self.n_items()) {
            let (wanted, got) = ((users.len(), self.n_items()), out.dim());
            return Err(format!("the output is {got:?}, expected {wanted:?}").into());
        }
        users.iter().try_for_each(|&user| self.check_user(user))?;
        let batch = self.config().user_stage.train.batch_size;
        for (users, mut out) in users.chunks(batch).zip(out.axis_chunks_iter_mut(Axis(0), batch)) {
            let examples: Vec<UserExample> =
                users.iter().map(|&user| known_user(self.config(), &self.data, user)).collect();
            let scores = self.model.lists().log_probabilities(&examples)?;
            for (mut row, scores) in out.rows_mut().into_iter().zip(scores) {
                row.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
            }
        }
        Ok(())
    }

    fn lists_itself(&self) -> bool {
        true
    }

    fn top_k(
        &self,
        users: &[u32],
        k: usize,
        excluded: &[Vec<u32>],
    ) -> std::result::Result<Vec<Vec<Ranked>>, ScorerError> {
        users.iter().try_for_each(|&user| self.check_user(user))?;
        let queries = users.iter().copied().zip(excluded.iter().cloned());
        Ok(rank_users(self.model.lists(), &self.data, queries, k)?)
    }

    /// The language model fills all cores by itself.
    fn parallel(&self) -> bool {
        false
    }
}
