use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use glta_comm::Communicator;
use glta_gllm::{Decoder, Ranked};
use glta_linear::{Explanation, Form, LinearModel};
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::artifact::{Finished, load, load_data, load_vectors};
use crate::data::{ItemRecord, RunData};
use crate::fields::Fields;
use crate::files::VECTORS;
use crate::growth::{Growth, not_growing};
use crate::language::LanguageModel;
use crate::lists::{Query, known_user, rank_users, validation};
use crate::options::{Allowed, ListOptions, Person};
use crate::sampling::{UserExample, inference_example};
use crate::similar::{self, Similar, Similarity};
use crate::trained::Model;
use crate::{Config, Error, Result};

/// A trained recommender.
///
/// Every recommendation is an item of the catalogue that the user does not have, unless
/// [`ListOptions::allow_known`] permits known items. An answer does not depend on the other queries
/// of its batch.
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
    similar: Arc<Similar>,
    /// Number of users of each item, counted on first use.
    degrees: Arc<OnceLock<Vec<u32>>>,
    fields: Arc<Fields>,
    growth: Option<Box<Growth>>,
}

/// Two maps from raw ids to dense ids: of users and of items.
#[derive(Debug, Clone)]
struct Ids {
    users: HashMap<String, u32>,
    items: HashMap<String, u32>,
}

/// An item of a list, with its score.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recommendation<'a> {
    /// Dense item id.
    pub item: u32,
    /// Log-probability of the item among all items. In a list of similar items, it is the
    /// similarity. In a list of popular items, for a user without items, it is the logarithm of the
    /// item's share of all interactions.
    pub score: f32,
    /// Record of the item: its raw id, title, text and fields.
    pub record: &'a ItemRecord,
}

impl Recommender {
    pub(crate) fn new(model: Model, data: Arc<RunData>) -> Self {
        // A forgotten user has no raw id.
        let named = data.users.iter().cloned().zip(0..).filter(|(name, _)| !name.is_empty());
        let users = named.collect();
        let items = data.items.iter().map(|item| item.raw_id.clone()).zip(0..).collect();
        let (ids, similar) = (Arc::new(Ids { users, items }), Arc::default());
        let (degrees, fields) = (Arc::default(), Arc::default());
        Self { model, data, ids, similar, degrees, fields, growth: None }
    }

    /// Sets the folder of the run, from which text vectors are read.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.similar = Arc::new(Similar::of(Some(folder.to_owned())));
        self
    }

    /// Opens the recommender of a finished [`Run`](crate::Run) in `dir` whose scores need no
    /// prompt. Such a run has no language model, or its scores are those of the linear model alone,
    /// by configuration or because validation chose the factor 0 for the correction.
    ///
    /// # Errors
    /// Returns [`Error::NoLlm`] if the run needs its language model, and an error if the run is
    /// unfinished or its files are damaged.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::opened(dir.as_ref(), None)
    }

    /// Opens the recommender of any finished run. `language` must be the checkpoint of the run,
    /// loaded with the `llm` options of [`Config::of_run`]. The prompts are those of the run.
    ///
    /// # Errors
    /// Returns [`Error::OtherCheckpoint`] if `language` is not the checkpoint of the run. Returns
    /// an error if the run is unfinished, its files are damaged, or the language model has a
    /// different number of layers than the run used.
    pub fn open_with(dir: impl AsRef<Path>, language: &LanguageModel) -> Result<Self> {
        Self::opened(dir.as_ref(), Some(language))
    }

    fn opened(dir: &Path, language: Option<&LanguageModel>) -> Result<Self> {
        let data = Arc::new(load_data(dir)?);
        let Finished { model, .. } = load(dir, &data, language)?;
        Ok(Self::new(model, data).in_folder(dir))
    }

    /// Returns the same model with a different decoder for its slots. The result does not share the
    /// state of [`grow`](Self::grow), so methods that need this state return an error.
    pub fn with_decoder(&self, decoder: Decoder) -> Self {
        let model = match &self.model {
            Model::Linear(lists) => Model::Linear(Box::new(lists.with_decoder(decoder))),
            Model::Prompt(model) => Model::Prompt(Box::new(model.with_decoder(decoder))),
        };
        Self {
            model,
            data: Arc::clone(&self.data),
            ids: Arc::clone(&self.ids),
            similar: Arc::clone(&self.similar),
            degrees: Arc::clone(&self.degrees),
            fields: Arc::clone(&self.fields),
            growth: None,
        }
    }

    /// Returns N@10 on the run's validation items, with the decoder of this recommender. Training
    /// items are masked. Returns `None` if the run has no validation items. All ranks of `comm`
    /// must make this call, and get the same value.
    ///
    /// # Errors
    /// Returns an error if another rank fails, and the errors of the language model.
    pub fn validation(&self, comm: &dyn Communicator) -> Result<Option<f64>> {
        validation(self.model.lists(), &self.data, comm)
    }

    /// Returns the configuration of the run.
    pub fn config(&self) -> &Config {
        self.model.lists().config()
    }

    /// Returns the catalogue, by dense item id.
    pub fn items(&self) -> &[ItemRecord] {
        &self.data.items
    }

    /// Returns the raw user ids, by dense user id.
    pub fn users(&self) -> &[String] {
        &self.data.users
    }

    /// Returns the dense id of a user, or `None` if the raw id is unknown.
    pub fn user(&self, raw_id: &str) -> Option<u32> {
        self.ids.users.get(raw_id).copied()
    }

    /// Returns the dense id of an item, or `None` if the raw id is unknown.
    pub fn item(&self, raw_id: &str) -> Option<u32> {
        self.ids.items.get(raw_id).copied()
    }

    /// Returns the known items of a user, in ascending order.
    ///
    /// # Errors
    /// Returns [`Error::UnknownUser`] if the user is unknown.
    pub fn history(&self, user: u32) -> Result<Vec<u32>> {
        self.check_user(user)?;
        Ok(match &self.growth {
            Some(growth) => growth.growing.history(user).to_vec(),
            None => self.data.seen(user),
        })
    }

    /// Returns the best `k` items for a known user, or fewer if the catalogue has no others.
    ///
    /// # Errors
    /// Returns [`Error::UnknownUser`] if the user is unknown.
    pub fn recommend(&self, user: u32, k: usize) -> Result<Vec<Recommendation<'_>>> {
        Ok(self.recommend_batch(&[user], k)?.pop().unwrap_or_default())
    }

    /// Returns one list for each of several users, in order, like [`recommend`](Self::recommend).
    ///
    /// # Errors
    /// Returns [`Error::UnknownUser`] if a user is unknown.
    pub fn recommend_batch(&self, users: &[u32], k: usize) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let people: Vec<Person<'_>> = users.iter().map(|&user| Person::User(user)).collect();
        self.recommend_with(&people, k, &ListOptions::default())
    }

    /// Returns the best `k` of the items that `options` allow, for each of `people`. A list is
    /// shorter if fewer items are allowed. The list of a known user is computed from all known
    /// items, including validation items. A user without items gets the most popular items.
    ///
    /// ```no_run
    /// # use glta_align::{ListOptions, Person, Recommender};
    /// # fn ask(recommender: &Recommender) -> glta_align::Result<()> {
    /// let people = [Person::User(3), Person::Items(&[17, 4]), Person::Items(&[])];
    /// let tea = ListOptions::default().filter("category", "Tea").allow_known();
    /// for list in recommender.recommend_with(&people, 5, &tea)? {
    ///     println!("{}", list[0].record.title);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if a user, an item or a field is unknown, and the errors of the language
    /// model.
    pub fn recommend_with(
        &self,
        people: &[Person<'_>],
        k: usize,
        options: &ListOptions,
    ) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let contexts =
            people.iter().map(|person| self.context(person)).collect::<Result<Vec<_>>>()?;
        let items = self.data.items.len();
        let filter = self.fields.allowed(&options.filter, &self.data.items)?;
        if let Some(linear) = self.linear_alone() {
            let list = |context: &Vec<u32>| -> Result<Vec<Ranked>> {
                let allowed = Allowed::new(options, items, filter.as_deref(), context)?;
                if context.is_empty() {
                    return Ok(self.popular(k, &allowed));
                }
                Ok(linear.top_log_probabilities(context, k, |item| allowed.skips(item)))
            };
            let lists = contexts.par_iter().map(list).collect::<Result<Vec<_>>>()?;
            return Ok(self.records(lists));
        }
        let config = self.config();
        let mut lists = vec![Vec::new(); people.len()];
        let mut queries: Vec<Query> = Vec::new();
        let mut asked = Vec::new();
        for (nth, (person, context)) in people.iter().zip(&contexts).enumerate() {
            let allowed = Allowed::new(options, items, filter.as_deref(), context)?;
            if context.is_empty() {
                lists[nth] = self.popular(k, &allowed);
                continue;
            }
            let user = match person {
                Person::User(user) => Some(*user),
                Person::Items(_) => None,
            };
            let example = inference_example(user, context, config.model.history, config.seed);
            queries.push((example, allowed.skipped()));
            asked.push(nth);
        }
        for (nth, list) in asked.into_iter().zip(self.model.lists().lists(&queries, k)?) {
            lists[nth] = list;
        }
        Ok(self.records(lists))
    }

    /// Returns all items of a user, in ascending order.
    fn context(&self, person: &Person<'_>) -> Result<Vec<u32>> {
        match *person {
            Person::User(user) => self.history(user),
            Person::Items(items) => {
                let known = self.data.items.len();
                if let Some(&item) = items.iter().find(|&&item| item as usize >= known) {
                    return Err(Error::UnknownItem { item, items: known });
                }
                let mut items = items.to_vec();
                items.sort_unstable();
                items.dedup();
                Ok(items)
            }
        }
    }

    /// Returns the most popular allowed items, with the logarithm of their share of all
    /// interactions.
    fn popular(&self, k: usize, allowed: &Allowed<'_>) -> Vec<Ranked> {
        let degrees = self.degrees();
        let all: f32 = degrees.iter().map(|&degree| degree as f32 + 1.0).sum();
        let mut items: Vec<u32> =
            (0..degrees.len() as u32).filter(|&item| !allowed.skips(item)).collect();
        items.sort_by_key(|&item| std::cmp::Reverse(degrees[item as usize]));
        items.truncate(k);
        let score = |item: u32| ((degrees[item as usize] as f32 + 1.0) / all).ln();
        items.into_iter().map(|item| Ranked { item, score: score(item) }).collect()
    }

    /// Returns one list for each user, like [`recommend_batch`](Self::recommend_batch), with only
    /// the given `items`, such as new items.
    ///
    /// # Errors
    /// Returns an error if a user or an item is unknown.
    pub fn recommend_among(
        &self,
        users: &[u32],
        items: &[u32],
        k: usize,
    ) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let people: Vec<Person<'_>> = users.iter().map(|&user| Person::User(user)).collect();
        let options = ListOptions { among: Some(items.to_vec()), ..ListOptions::default() };
        self.recommend_with(&people, k, &options)
    }

    /// Returns the `k` items that are most similar to an item, among those that `options` allow.
    ///
    /// ```no_run
    /// # use glta_align::{ListOptions, Recommender, Similarity};
    /// # fn ask(recommender: &Recommender) -> glta_align::Result<()> {
    /// let item = recommender.item("article-3").unwrap_or_default();
    /// let all = ListOptions::default();
    /// for other in recommender.similar_items(item, 5, Similarity::Text, &all)? {
    ///     println!("{:.2} {}", other.score, other.record.title);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the item or a field is unknown, and [`Error::Unsupported`] for
    /// similarity by text if the run has no text vectors.
    pub fn similar_items(
        &self,
        item: u32,
        k: usize,
        by: Similarity,
        options: &ListOptions,
    ) -> Result<Vec<Recommendation<'_>>> {
        let items = self.data.items.len();
        if item as usize >= items {
            return Err(Error::UnknownItem { item, items });
        }
        let filter = self.fields.allowed(&options.filter, &self.data.items)?;
        let allowed = Allowed::new(options, items, filter.as_deref(), &[])?;
        let ranked = match by {
            Similarity::Text => {
                let none = || Error::Unsupported("the run has no text vectors".into());
                if let Some(growth) = &self.growth {
                    let growing = &growth.growing;
                    growing.text_dim().ok_or_else(none)?;
                    let vector = |item| growing.text_vector(item).unwrap_or_default();
                    let ranked = similar::by_text(items, vector, item);
                    return Ok(self.kept(ranked, k, &allowed));
                }
                let load = |folder: &Path| {
                    let path = folder.join(VECTORS);
                    if path.exists() { load_vectors(&path, &self.data) } else { Ok(None) }
                };
                let text = self.similar.text(load)?;
                let text = text.ok_or_else(none)?;
                similar::by_text(items, |item| text.row(item as usize), item)
            }
            Similarity::CoInteractions => {
                if let Some(growth) = &self.growth {
                    let (train, users_of) = growth.people()?;
                    let ranked = similar::by_people(train, users_of, item);
                    return Ok(self.kept(ranked, k, &allowed));
                }
                let train = &self.data.train;
                similar::by_people(train, self.similar.users_of(train), item)
            }
        };
        Ok(self.kept(ranked, k, &allowed))
    }

    /// Returns the best `k` allowed items, with their records.
    fn kept(
        &self,
        mut ranked: Vec<Ranked>,
        k: usize,
        allowed: &Allowed<'_>,
    ) -> Vec<Recommendation<'_>> {
        ranked.retain(|ranked| !allowed.skips(ranked.item));
        self.records(vec![similar::best(ranked, k)]).pop().unwrap_or_default()
    }

    /// Returns how much each of a user's items contributes to the score of an item in the linear
    /// model. The contributions add up exactly to this score, which does not include the prompt
    /// path.
    ///
    /// # Errors
    /// Returns an error if the user or an item is unknown, and [`Error::Unsupported`] if the run
    /// has no linear model.
    pub fn explain(&self, person: Person<'_>, item: u32) -> Result<Explanation> {
        let items = self.data.items.len();
        if item as usize >= items {
            return Err(Error::UnknownItem { item, items });
        }
        let context = self.context(&person)?;
        let none =
            || Error::Unsupported("the run has no linear model, which explanations need".into());
        Ok(self.linear().ok_or_else(none)?.explain(&context, item))
    }

    /// Returns the linear model, if there is one.
    fn linear(&self) -> Option<&LinearModel> {
        if let Some(growth) = &self.growth {
            return Some(growth.growing.model());
        }
        match &self.model {
            Model::Linear(lists) => Some(lists.linear()),
            Model::Prompt(model) => model.linear().map(|linear| &**linear),
        }
    }

    /// Returns whether a growing recommender updates its linear model with a new item by solving a
    /// few small linear systems. Otherwise, the linear model is fitted again.
    pub fn grows_in_place(&self) -> bool {
        let form = self.growth.as_ref().map(|growth| growth.growing.model().report().form);
        matches!(form, Some(Form::Local { rank: 0, .. }))
    }

    /// Returns the linear model if its scores are not corrected by a prompt path.
    fn linear_alone(&self) -> Option<&LinearModel> {
        match &self.model {
            Model::Linear(_) => self.linear(),
            Model::Prompt(_) => None,
        }
    }

    /// Returns whether the prompt path contributes to the scores.
    pub fn has_prompt(&self) -> bool {
        self.linear_alone().is_none()
    }

    fn degrees(&self) -> &[u32] {
        if let Some(growth) = &self.growth {
            return growth.growing.model().degrees();
        }
        self.degrees.get_or_init(|| self.data.train.item_degrees())
    }

    /// Returns the best `k` items for a user who has the given `items`, in any order. Repeated
    /// items count once.
    ///
    /// # Errors
    /// Returns [`Error::UnknownItem`] if an item is unknown.
    pub fn recommend_for_items(&self, items: &[u32], k: usize) -> Result<Vec<Recommendation<'_>>> {
        Ok(self.recommend_for_items_batch(&[items], k)?.pop().unwrap_or_default())
    }

    /// Returns one list for each of several users, in order, like
    /// [`recommend_for_items`](Self::recommend_for_items). An entry of `people` contains the items
    /// of one user.
    ///
    /// # Errors
    /// Returns [`Error::UnknownItem`] if an item is unknown.
    pub fn recommend_for_items_batch(
        &self,
        people: &[impl AsRef<[u32]>],
        k: usize,
    ) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let people: Vec<Person<'_>> =
            people.iter().map(|items| Person::Items(items.as_ref())).collect();
        self.recommend_with(&people, k, &ListOptions::default())
    }

    /// Returns the folder from which the recommender was opened or in which it was trained.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.similar.folder.as_deref()
    }

    pub(crate) fn data(&self) -> &RunData {
        &self.data
    }

    pub(crate) fn growth(&self) -> Option<&Growth> {
        self.growth.as_deref()
    }

    pub(crate) fn growth_mut(&mut self) -> Result<&mut Growth> {
        self.growth.as_deref_mut().ok_or_else(not_growing)
    }

    pub(crate) fn set_growth(&mut self, growth: Growth) {
        self.growth = Some(Box::new(growth));
    }

    /// Adds items with new dense ids after the existing ones.
    pub(crate) fn push_items(&mut self, items: &[ItemRecord]) {
        let data = Arc::make_mut(&mut self.data);
        let ids = Arc::make_mut(&mut self.ids);
        self.fields = Arc::default();
        for item in items {
            ids.items.insert(item.raw_id.clone(), data.items.len() as u32);
            data.items.push(item.clone());
        }
    }

    pub(crate) fn put_record(&mut self, item: u32, record: ItemRecord) {
        self.fields = Arc::default();
        Arc::make_mut(&mut self.data).items[item as usize] = record;
    }

    /// Returns the dense id of a user. An unknown user is added.
    pub(crate) fn user_or_new(&mut self, raw_id: &str) -> u32 {
        if let Some(user) = self.user(raw_id) {
            return user;
        }
        let data = Arc::make_mut(&mut self.data);
        let user = data.users.len() as u32;
        data.users.push(raw_id.to_owned());
        Arc::make_mut(&mut self.ids).users.insert(raw_id.to_owned(), user);
        user
    }

    /// Removes the raw id of a user. The dense id remains.
    pub(crate) fn forget_id(&mut self, raw_id: &str, user: u32) {
        Arc::make_mut(&mut self.ids).users.remove(raw_id);
        Arc::make_mut(&mut self.data).users[user as usize].clear();
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

/// Ranks items for known users from their training items, so that a recommender can be evaluated
/// like any other model:
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
/// The decoder makes the lists. [`Scorer::score`] returns log-probabilities of all items, which
/// lists do not need. They come from the first slot with [`Decoder::FirstLogit`] or in an
/// autoregressive model, otherwise from the mean over the slots.
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

    /// Returns false, because the language model uses all cores itself.
    fn parallel(&self) -> bool {
        false
    }
}
