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
/// [`ListOptions::allow_known`] permits it. An answer does not depend on its batch.
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
    /// Number of users of each item.
    degrees: Arc<OnceLock<Vec<u32>>>,
    fields: Arc<Fields>,
    growth: Option<Box<Growth>>,
}

/// Maps of raw ids to dense ids.
#[derive(Debug, Clone)]
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
    /// Log-probability among all items; for a similar item, its similarity; for a popular item and
    /// a user without items, the log of its share of all interactions.
    pub score: f32,
    /// The item's raw id, title and text.
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

    /// Sets the folder of the run, for its text vectors.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.similar = Arc::new(Similar::of(Some(folder.to_owned())));
        self
    }

    /// Opens the recommender of a finished [`Run`](crate::Run) in `dir` that runs no prompt: the
    /// linear model alone, by configuration or because validation chose the factor 0 for the
    /// correction, or a run without a language model.
    ///
    /// # Errors
    /// [`Error::NoLlm`] for a run that needs its language model, an unfinished run, or damaged
    /// files.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::opened(dir.as_ref(), None)
    }

    /// [`open`](Self::open) for any run. `language` must be the checkpoint of the run, loaded with
    /// the `llm` options of [`Config::of_run`]. The prompts are those of the run.
    ///
    /// # Errors
    /// An unfinished run, damaged files, [`Error::OtherCheckpoint`], or a language model with
    /// another number of layers.
    pub fn open_with(dir: impl AsRef<Path>, language: &LanguageModel) -> Result<Self> {
        Self::opened(dir.as_ref(), Some(language))
    }

    fn opened(dir: &Path, language: Option<&LanguageModel>) -> Result<Self> {
        let data = Arc::new(load_data(dir)?);
        let Finished { model, .. } = load(dir, &data, language)?;
        Ok(Self::new(model, data).in_folder(dir))
    }

    /// The same model with another decoder for its slots. It cannot grow.
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

    /// N@10 on the run's validation items without training items, with the decoder of this
    /// recommender. `None` for a run without validation items. All ranks of `comm` must call it,
    /// and get the same value.
    ///
    /// # Errors
    /// A failed rank, or an error of the language model.
    pub fn validation(&self, comm: &dyn Communicator) -> Result<Option<f64>> {
        validation(self.model.lists(), &self.data, comm)
    }

    /// The configuration of the run.
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

    /// The known items of a user, in ascending order.
    ///
    /// # Errors
    /// An unknown user.
    pub fn history(&self, user: u32) -> Result<Vec<u32>> {
        self.check_user(user)?;
        Ok(match &self.growth {
            Some(growth) => growth.growing.history(user).to_vec(),
            None => self.data.seen(user),
        })
    }

    /// The best `k` items for a user of the training data; fewer if the catalogue has no others.
    ///
    /// # Errors
    /// An unknown user.
    pub fn recommend(&self, user: u32, k: usize) -> Result<Vec<Recommendation<'_>>> {
        Ok(self.recommend_batch(&[user], k)?.pop().unwrap_or_default())
    }

    /// [`recommend`](Self::recommend) for several users: one list each, in order.
    ///
    /// # Errors
    /// An unknown user.
    pub fn recommend_batch(&self, users: &[u32], k: usize) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let people: Vec<Person<'_>> = users.iter().map(|&user| Person::User(user)).collect();
        self.recommend_with(&people, k, &ListOptions::default())
    }

    /// The best `k` items for each of `people` among those that `options` allow; fewer if there are
    /// no others. All known items of a user are used, including validation items. A user without
    /// items gets the most popular items.
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
    /// An unknown user, item or field, or an error of the language model.
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

    /// All items of a user, in ascending order.
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

    /// The most popular items, with the log of their share of all interactions.
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

    /// [`recommend_batch`](Self::recommend_batch) among `items` only, such as new items, as if
    /// there were no others.
    ///
    /// # Errors
    /// An unknown user or item.
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

    /// The `k` most similar items to an item, among those that `options` allow.
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
    /// An unknown item or field; [`Error::Unsupported`] for similarity by text in a run without
    /// text vectors.
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

    /// The best `k` allowed items.
    fn kept(
        &self,
        mut ranked: Vec<Ranked>,
        k: usize,
        allowed: &Allowed<'_>,
    ) -> Vec<Recommendation<'_>> {
        ranked.retain(|ranked| !allowed.skips(ranked.item));
        self.records(vec![similar::best(ranked, k)]).pop().unwrap_or_default()
    }

    /// How much each of a user's items contributes to the score of an item in the linear model. The
    /// sum is exact. A contribution of the prompt path is not included.
    ///
    /// # Errors
    /// An unknown user or item; [`Error::Unsupported`] for a run without a linear model.
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

    /// The linear model, if there is one.
    fn linear(&self) -> Option<&LinearModel> {
        if let Some(growth) = &self.growth {
            return Some(growth.growing.model());
        }
        match &self.model {
            Model::Linear(lists) => Some(lists.linear()),
            Model::Prompt(model) => model.linear().map(|linear| &**linear),
        }
    }

    /// Whether a new item only needs a few small systems. Otherwise a growing recommender is fitted
    /// again.
    pub fn grows_in_place(&self) -> bool {
        let form = self.growth.as_ref().map(|growth| growth.growing.model().report().form);
        matches!(form, Some(Form::Local { rank: 0, .. }))
    }

    /// The linear model, if there is no prompt path.
    fn linear_alone(&self) -> Option<&LinearModel> {
        match &self.model {
            Model::Linear(_) => self.linear(),
            Model::Prompt(_) => None,
        }
    }

    /// Whether the prompt path contributes to the scores.
    pub fn has_prompt(&self) -> bool {
        self.linear_alone().is_none()
    }

    fn degrees(&self) -> &[u32] {
        if let Some(growth) = &self.growth {
            return growth.growing.model().degrees();
        }
        self.degrees.get_or_init(|| self.data.train.item_degrees())
    }

    /// The best `k` items for any user with these `items` (in any order; repeated ones count once).
    ///
    /// # Errors
    /// An unknown item.
    pub fn recommend_for_items(&self, items: &[u32], k: usize) -> Result<Vec<Recommendation<'_>>> {
        Ok(self.recommend_for_items_batch(&[items], k)?.pop().unwrap_or_default())
    }

    /// [`recommend_for_items`](Self::recommend_for_items) for several users: one list each, in
    /// order.
    ///
    /// # Errors
    /// An unknown item.
    pub fn recommend_for_items_batch(
        &self,
        people: &[impl AsRef<[u32]>],
        k: usize,
    ) -> Result<Vec<Vec<Recommendation<'_>>>> {
        let people: Vec<Person<'_>> =
            people.iter().map(|items| Person::Items(items.as_ref())).collect();
        self.recommend_with(&people, k, &ListOptions::default())
    }

    /// The folder from which it was opened or in which it was trained.
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

    /// Adds ids for new items, after the others.
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

    /// The dense id of a user, who may be new.
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

    /// Removes the raw id of a user; the dense id remains.
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

/// Ranks users of the training data by their training items, so that a recommender is evaluated
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
/// The lists are those of the decoder. [`Scorer::score`] returns log-probabilities of all items,
/// which lists do not need. They come from the first slot with [`Decoder::FirstLogit`] or in an
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

    /// The language model uses all cores itself.
    fn parallel(&self) -> bool {
        false
    }
}
