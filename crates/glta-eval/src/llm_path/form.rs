//! Systems that add a score to the linear model, and their controls.

use std::sync::Arc;
use std::time::Instant;

use glta_align::{ItemVectors, Recommender};
use glta_core::stream;
use glta_linear::TextVectors;
use glta_metrics::Scorer;
use ndarray::{Array2, ArrayView2, Axis, s};

use super::names;
use super::prompts::{Prompts, divide};
use super::reader::Reader;
use super::ridge::Moments;
use super::scorer::{Added, Extra};
use crate::error::BoxError;
use crate::reason::Reason;
use crate::seed::Seed;
use crate::system::{Fitted, System};
use crate::systems::variants;
use crate::{Error, Result};

/// Number of users per block of scores.
const USERS: usize = 64;
/// Weight of the added score while its other settings are compared.
const MIDDLE: f32 = 0.2;

/// The source of the score that is added to the linear model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Hidden states of the language model after a prompt of titles. A ridge regression predicts
    /// the text vectors of hidden items from them.
    States { random: bool },
    /// Control for `States`: a ridge regression from the mean text vector of the items in the
    /// prompt instead of the hidden states.
    MeanVector,
    /// Control for `States`: a ridge regression from the text vector of all titles, joined into one
    /// text and encoded.
    OneText,
    /// Mean log-likelihood per token of the candidates' titles after the prompt, under the language
    /// model. Validation data decide whether the value after a prompt without titles is subtracted.
    Likelihood { random: bool },
    /// Control for `Likelihood`: scores of the same candidates by text neighbours of the user's
    /// items.
    Neighbours,
}

pub(crate) struct FormSystem {
    name: &'static str,
    pub(crate) form: Form,
}

/// Returns all systems with an added score; the cheap systems come first.
pub(crate) fn all() -> [FormSystem; 7] {
    [
        (names::MEAN_VECTOR, Form::MeanVector),
        (names::ONE_TEXT, Form::OneText),
        (names::NEIGHBOURS, Form::Neighbours),
        (names::STATES, Form::States { random: false }),
        (names::LIKELIHOOD, Form::Likelihood { random: false }),
        (names::RANDOM_STATES, Form::States { random: true }),
        (names::RANDOM_LIKELIHOOD, Form::Likelihood { random: true }),
    ]
    .map(|(name, form)| FormSystem { name, form })
}

/// The linear model of the seed, in the shared results.
struct Linear(Arc<Recommender>);

/// Candidate items of each user.
struct Candidates(Vec<Vec<u32>>);

/// A random division of each user's items into shown and hidden ones. Users with fewer than two
/// items are left out.
struct Divided {
    shown: Vec<Vec<u32>>,
    hidden: Vec<Vec<u32>>,
    prompts: Option<DividedPrompts>,
}

/// Token ids of the prompts.
struct DividedPrompts {
    /// One prompt per divided user, with the shown items.
    shown: Vec<Vec<u32>>,
    /// One prompt per user, with all training items.
    whole: Vec<Vec<u32>>,
}

impl System for FormSystem {
    fn name(&self) -> &str {
        self.name
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let linear = seed.linear()?;
        let texts = seed.texts_of_linear()?;
        let started = Instant::now();
        let fitted = match self.form {
            Form::Likelihood { .. } | Form::Neighbours => self.rank_again(seed, &linear, &texts)?,
            _ => self.regress(seed, &linear, &texts)?,
        };
        Ok(fitted.seconds(started.elapsed().as_secs_f64()))
    }
}

impl FormSystem {
    /// Adds to the linear model the inner product of each item's text vector with a vector that a
    /// ridge regression predicts for the user.
    fn regress(
        &self,
        seed: &mut Seed<'_>,
        linear: &Arc<Recommender>,
        texts: &TextVectors,
    ) -> Result<Fitted> {
        let users = seed.split().train.n_users();
        let divided = seed.divided(matches!(self.form, Form::States { .. }))?;
        if divided.shown.is_empty() {
            let (system, reason) = (self.name.to_owned(), Reason::FewItems.to_string());
            return Err(Error::CannotRun { system, reason });
        }
        let train = &seed.split().train;
        let all: Vec<Vec<u32>> = (0..users as u32).map(|u| train.items(u).to_vec()).collect();
        let targets = sums(texts.view(), &divided.hidden);
        // Each has the features of the divided users, then those of all users with all training
        // items.
        let features: Vec<(&str, Array2<f32>, Array2<f32>)> = match self.form {
            Form::States { random } => {
                let reader = Reader::new(seed, random)?;
                let batch = seed.config().llm_path.batch_size;
                let DividedPrompts { shown, whole } = divided
                    .prompts
                    .as_ref()
                    .ok_or(Error::NoLanguage { system: self.name.to_owned() })?;
                let shown = reader.states(seed, self.name, shown, batch)?;
                let whole = reader.states(seed, self.name, whole, batch)?;
                let half = shown.ncols() / 2;
                let part = |from: usize, to: usize| {
                    let of = |states: &Array2<f32>| states.slice(s![.., from..to]).to_owned();
                    (of(&shown), of(&whole))
                };
                let ((last, all_last), (mean, all_mean)) = (part(0, half), part(half, 2 * half));
                vec![("last token", last, all_last), ("mean", mean, all_mean)]
            }
            Form::OneText => {
                let prompts = seed.titles()?;
                let joined = |of: &[Vec<u32>]| -> Vec<String> {
                    of.iter().map(|items| prompts.as_text(items)).collect()
                };
                let shown = seed.encode(self.name, &joined(&divided.shown))?;
                let whole = seed.encode(self.name, &joined(&all))?;
                vec![("one text", shown, whole)]
            }
            _ => {
                let mean = |of: &[Vec<u32>]| {
                    let mut sums = sums(texts.view(), of);
                    for (mut row, items) in sums.rows_mut().into_iter().zip(of) {
                        row /= items.len().max(1) as f32;
                    }
                    sums
                };
                vec![("mean vector", mean(&divided.shown), mean(&all))]
            }
        };
        let strengths = seed.config().llm_path.ridge.clone();
        let mut best: Option<(f64, &str, f64, Extra)> = None;
        for (name, shown, whole) in &features {
            let moments = Moments::new(shown.view(), targets.view());
            for &strength in &strengths {
                let predicted = moments.solve(strength)?.predict(whole.view());
                let extra = Extra::Text(Arc::new(predicted), texts.clone());
                let added = Added { linear: Arc::clone(linear), extra, weight: MIDDLE };
                let valid = seed.validation(&added)?;
                seed.note(&format!("{}, {name}, ridge {strength}: {valid:.4}", self.name))?;
                if best.as_ref().is_none_or(|best| valid > best.0) {
                    best = Some((valid, *name, strength, added.extra));
                }
            }
        }
        let (_, name, strength, extra) =
            best.ok_or_else(|| crate::systems::ease::no_score(self.name))?;
        let fitted = self.weigh(seed, linear, extra)?;
        Ok(fitted.setting("features", name).setting("ridge", strength))
    }

    /// Adds a score to the linear model for the candidates of each user only.
    fn rank_again(
        &self,
        seed: &mut Seed<'_>,
        linear: &Arc<Recommender>,
        texts: &TextVectors,
    ) -> Result<Fitted> {
        let candidates = seed.candidates(linear, texts)?;
        let train = &seed.split().train;
        let scored = |scores: Vec<Vec<f32>>| {
            let of = |(items, scores): (&Vec<u32>, Vec<f32>)| {
                items.iter().copied().zip(scores).collect::<Vec<_>>()
            };
            Extra::of_some(candidates.0.iter().zip(scores).map(of).collect())
        };
        let ways: Vec<(&str, Extra)> = match self.form {
            Form::Likelihood { random } => {
                let reader = Reader::new(seed, random)?;
                let divided = seed.divided(true)?;
                let prompts = seed.titles()?;
                let histories = &divided
                    .prompts
                    .as_ref()
                    .ok_or(Error::NoLanguage { system: self.name.to_owned() })?
                    .whole;
                let jobs: Vec<(Vec<u32>, Vec<u32>)> =
                    histories.iter().cloned().zip(candidates.0.iter().cloned()).collect();
                let after = reader.likelihoods(seed, self.name, &jobs, &prompts)?;
                // The likelihood of every title without a history.
                let empty = prompts.history(&[], &mut stream(seed.number(), "llm path", &[]))?;
                let items: Vec<u32> = (0..train.n_items() as u32).collect();
                let jobs: Vec<(Vec<u32>, Vec<u32>)> =
                    items.chunks(USERS).map(|items| (empty.clone(), items.to_vec())).collect();
                let alone = reader.likelihoods(seed, self.name, &jobs, &prompts)?.concat();
                let ratios = candidates.0.iter().zip(&after).map(|(items, after)| {
                    items.iter().zip(after).map(|(&i, l)| l - alone[i as usize]).collect()
                });
                let ratios: Vec<Vec<f32>> = ratios.collect();
                vec![("likelihood", scored(after)), ("ratio", scored(ratios))]
            }
            _ => {
                let vectors = texts.view();
                let near = |(user, items): (u32, &Vec<u32>)| -> Vec<f32> {
                    let own = train.items(user);
                    let of = |item: &u32| {
                        let vector = vectors.row(*item as usize);
                        let cosines = own.iter().map(|&i| vector.dot(&vectors.row(i as usize)));
                        cosines.map(|cosine| cosine.max(0.0)).sum()
                    };
                    items.iter().map(of).collect()
                };
                vec![("neighbours", scored((0u32..).zip(&candidates.0).map(near).collect()))]
            }
        };
        let mut best: Option<(f64, &str, Extra)> = None;
        for (name, extra) in ways {
            let added = Added { linear: Arc::clone(linear), extra, weight: MIDDLE };
            let valid = seed.validation(&added)?;
            seed.note(&format!("{}, {name}: {valid:.4}", self.name))?;
            if best.as_ref().is_none_or(|best| valid > best.0) {
                best = Some((valid, name, added.extra));
            }
        }
        let (_, name, extra) = best.ok_or_else(|| crate::systems::ease::no_score(self.name))?;
        Ok(self.weigh(seed, linear, extra)?.setting("score", name))
    }

    /// Chooses the weight of the added score on validation data.
    fn weigh(
        &self,
        seed: &mut Seed<'_>,
        linear: &Arc<Recommender>,
        extra: Extra,
    ) -> Result<Fitted> {
        let weights = &seed.config().llm_path.weights;
        let mut best: Option<(f64, f32)> = None;
        for weight in std::iter::once(0.0).chain(weights.iter().map(|&w| w as f32)) {
            let added = Added { linear: Arc::clone(linear), extra: extra.clone(), weight };
            let valid = seed.validation(&added)?;
            seed.note(&format!("{}, weight {weight}: {valid:.4}", self.name))?;
            if best.is_none_or(|best| valid > best.0) {
                best = Some((valid, weight));
            }
        }
        let (valid, weight) = best.ok_or_else(|| crate::systems::ease::no_score(self.name))?;
        let added = Added { linear: Arc::clone(linear), extra, weight };
        Ok(Fitted::new(added).validation(Some(valid)).setting("weight", weight))
    }
}

impl<'a> Seed<'a> {
    fn linear(&mut self) -> Result<Arc<Recommender>> {
        if let Some(linear) = self.shared.get::<Linear>() {
            return Ok(Arc::clone(&linear.0));
        }
        let (recommender, _) = variants::linear(self.config()).run(self)?;
        Ok(Arc::clone(&self.shared.put(Linear(Arc::new(recommender))).0))
    }

    /// Returns the text vectors of the linear model.
    fn texts_of_linear(&mut self) -> Result<TextVectors> {
        let vectors = self.item_vectors()?;
        if vectors.is_empty() {
            let reason = Reason::NoEncoder.to_string();
            return Err(Error::CannotRun { system: self.system.clone(), reason });
        }
        Ok(ItemVectors::join(&vectors, &self.config().glta.item_text.whiten)?.0)
    }

    fn titles(&self) -> Result<Prompts<'a>> {
        let config = self.config();
        Prompts::new(self.language()?, self.dataset(), &config.protocol.texts, &config.llm_path)
    }

    /// Returns the division of every user's items. All systems of the seed share the division.
    fn divided(&mut self, with_prompts: bool) -> Result<Arc<Divided>> {
        if let Some(divided) = self.shared.get::<Divided>()
            && (divided.prompts.is_some() || !with_prompts)
        {
            return Ok(divided);
        }
        let titles = with_prompts.then(|| self.titles()).transpose()?;
        let train = &self.split().train;
        let (mut shown, mut hidden) = (Vec::new(), Vec::new());
        let (mut of_shown, mut of_all) = (Vec::new(), Vec::new());
        for user in 0..train.n_users() as u32 {
            let mut rng = stream(self.number(), "llm path", &[u64::from(user)]);
            if let Some((some, rest)) = divide(train.items(user), &mut rng) {
                if let Some(titles) = &titles {
                    of_shown.push(titles.history(&some, &mut rng)?);
                }
                shown.push(some);
                hidden.push(rest);
            }
            if let Some(titles) = &titles {
                of_all.push(titles.history(train.items(user), &mut rng)?);
            }
        }
        let prompts = titles.is_some().then_some(DividedPrompts { shown: of_shown, whole: of_all });
        Ok(self.shared.put(Divided { shown, hidden, prompts }))
    }

    /// Returns the candidates of each user: the best items of the linear model, without training
    /// items, and the items without interactions that are nearest by text.
    fn candidates(&mut self, linear: &Recommender, texts: &TextVectors) -> Result<Arc<Candidates>> {
        if let Some(candidates) = self.shared.get::<Candidates>() {
            return Ok(candidates);
        }
        let config = &self.config().llm_path;
        let train = &self.split().train;
        let degrees = train.item_degrees();
        let new: Vec<u32> = (0..train.n_items() as u32)
            .filter(|&item| {
                degrees[item as usize] == 0 && texts.row(item as usize).iter().any(|&v| v != 0.0)
            })
            .collect();
        let vectors = texts.view();
        let of_new = vectors.select(Axis(0), &new.iter().map(|&i| i as usize).collect::<Vec<_>>());
        let mut all = Vec::new();
        let users: Vec<u32> = (0..train.n_users() as u32).collect();
        for block in users.chunks(USERS) {
            let mut scores = Array2::zeros((block.len(), train.n_items()));
            linear
                .score(block, scores.view_mut())
                .map_err(|e| Error::system(&self.system, self.number, e))?;
            for (&user, scores) in block.iter().zip(scores.rows()) {
                let own = train.items(user);
                let free = (0..train.n_items() as u32).filter(|i| own.binary_search(i).is_err());
                let ranked = free.map(|item| (scores[item as usize], item)).collect();
                let mut items = best(ranked, config.candidates);
                let wish = sums(vectors, &[own.to_vec()]);
                let near = of_new.dot(&wish.row(0));
                let ranked = near.iter().copied().zip(new.iter().copied()).collect();
                let more = best(ranked, config.new_items);
                items.extend(
                    more.into_iter().filter(|item| !items.contains(item)).collect::<Vec<_>>(),
                );
                all.push(items);
            }
        }
        Ok(self.shared.put(Candidates(all)))
    }
}

/// Returns the `k` items with the highest scores; equal scores are ordered by id.
fn best(mut ranked: Vec<(f32, u32)>, k: usize) -> Vec<u32> {
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().take(k).map(|(_, item)| item).collect()
}

/// Returns the sum of the vectors of each list of items.
fn sums(vectors: ArrayView2<'_, f32>, of: &[Vec<u32>]) -> Array2<f32> {
    let mut sums = Array2::zeros((of.len(), vectors.ncols()));
    for (mut row, items) in sums.rows_mut().into_iter().zip(of) {
        items.iter().for_each(|&item| row += &vectors.row(item as usize));
    }
    sums
}
