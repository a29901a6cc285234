use std::sync::{Arc, OnceLock};

use glta_data::Interactions;
use glta_metrics::{Ranked, Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::degrees::{FEW, PopularityTerms};
use crate::idle::Idle;
use crate::sparse::SparseRows;
use crate::touched::Sums;
use crate::{Ease, Error, Form, LinearReport, Result};

/// A linear model that scores all items from a user's items, in closed form.
///
/// The score is that of [`Ease`] with text vectors in the Gram matrix, `XᵀX + αTTᵀ + λI`, plus text
/// neighbours `β Σ max(0, cos)³`, plus the log of the degree `γ ln(1 + degree)`, times a
/// temperature. The form and the few weights are chosen on validation data.
///
/// As a [`Scorer`], the model scores the users of the training data by their training items.
///
/// ```
/// use glta_data::Interactions;
/// use glta_linear::{LinearConfig, LinearModel, TextVectors};
/// use ndarray::array;
///
/// // Items 0 and 1 go together. Nobody has item 3, whose text is like that of item 2.
/// let pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 2)];
/// let train = Interactions::from_pairs(4, 4, pairs)?;
/// let vectors = TextVectors::new(array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 1.0]])?;
/// let model = LinearModel::fit(&train, None, Some(&vectors), &LinearConfig::default(), 1)?;
/// assert!(model.score_items(&[0])[1] > model.score_items(&[0])[2]);
/// assert!(model.score_items(&[2])[3] > model.score_items(&[2])[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LinearModel {
    pub(crate) ease: Ease,
    /// Contributions of text neighbours, by source.
    pub(crate) text: Option<Arc<SparseRows>>,
    /// Number of users of each item in the training data.
    pub(crate) degrees: Vec<u32>,
    pub(crate) report: LinearReport,
    /// Mean of `ln(1 + degree)` over the items with interactions.
    mean_log: f32,
    /// Values of `ln(1 + degree)` for degrees below [`FEW`], which most items have.
    logs: Vec<f32>,
    /// All items, the most popular first; computed on first use.
    order: OnceLock<Vec<u32>>,
    pub(crate) popularity: OnceLock<PopularityTerms>,
    pub(crate) idle: Idle<Sums>,
}

impl LinearModel {
    pub(crate) fn new(
        ease: Ease,
        text: Option<Arc<SparseRows>>,
        train: &Interactions,
        report: LinearReport,
    ) -> Self {
        let degrees = train.item_degrees();
        let mean_log = mean_log(&degrees);
        let (order, popularity, idle) = (OnceLock::new(), OnceLock::new(), Idle::default());
        let logs = (0..FEW).map(|degree| (degree as f32).ln_1p()).collect();
        Self { ease, text, degrees, report, mean_log, logs, order, popularity, idle }
    }

    /// Returns the settings that the fit has chosen, and facts about the fit.
    pub fn report(&self) -> &LinearReport {
        &self.report
    }

    /// Returns the number of users of each item, `(items,)`.
    pub fn degrees(&self) -> &[u32] {
        &self.degrees
    }

    /// Sets β and γ, the weights of text neighbours and popularity, instead of the chosen values.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for a weight that is negative or not finite, and for a weight of
    /// text neighbours if the model has no neighbours: it has no texts, or it was saved with the
    /// weight 0.
    pub fn set_weights(&mut self, neighbours: f32, popularity: f32) -> Result<()> {
        let invalid =
            |field, problem: String| Err(Error::Config { system: "linear model", field, problem });
        for (field, weight) in [("neighbours", neighbours), ("popularity", popularity)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return invalid(field, format!("{weight} is neither zero nor a positive number"));
            }
        }
        if neighbours > 0.0 && self.text.is_none() {
            return invalid("neighbours", "the model has no text neighbours".into());
        }
        (self.report.neighbours, self.report.popularity) = (neighbours, popularity);
        self.items_changed();
        Ok(())
    }

    /// Returns the scores of all items for a user with `items`, `(items,)`. Unknown ids are
    /// ignored.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        self.finish(self.ease.score_items(items), items, &[])
    }

    /// Returns the scores of all items from `context`, a part of the user's training items, as if
    /// the model had been fitted without this user. The user's other items have no influence,
    /// except on the choice of the sources in the local form. [`Ease::score_without`] describes the
    /// method.
    ///
    /// # Errors
    /// Returns [`Error::User`](crate::Error::User) for an unknown user, and
    /// [`Error::TextVectors`](crate::Error::TextVectors) for a local model that was loaded without
    /// its text vectors.
    pub fn score_without(&self, user: u32, context: &[u32]) -> Result<Vec<f32>> {
        let scores = self.ease.score_without(user, context)?;
        Ok(self.finish(scores, context, self.ease.history(user)))
    }

    /// Adds neighbours and popularity to EASE's scores from `context` and applies the temperature.
    /// `own` contains all items of a user who is left out; the degrees of these items are lower by
    /// one.
    fn finish(&self, mut scores: Vec<f32>, context: &[u32], own: &[u32]) -> Vec<f32> {
        let LinearReport { neighbours, popularity, temperature, .. } = self.report;
        if neighbours > 0.0 && self.text.is_some() {
            let mut sums = vec![0.0; scores.len()];
            self.add_neighbours(context, &mut sums);
            for (item, (score, &sum)) in scores.iter_mut().zip(&sums).enumerate() {
                *score += neighbours * self.neighbour_count(item) * sum;
            }
            if self.report.new_items {
                let count = |degree: u32| neighbours / (1.0 + degree as f32);
                for &item in own {
                    let (item, degree) = (item as usize, self.degrees[item as usize]);
                    scores[item] += (count(degree - 1) - count(degree)) * sums[item];
                }
            }
        }
        if popularity > 0.0 {
            let new = if self.report.new_items { self.mean_log_without(own) } else { 0.0 };
            let value = |degree: u32| popularity * if degree == 0 { new } else { log(degree) };
            scores.iter_mut().zip(&self.degrees).for_each(|(s, &degree)| *s += value(degree));
            for &item in own {
                let degree = self.degrees[item as usize];
                scores[item as usize] += value(degree - 1) - value(degree);
            }
        }
        scores.iter_mut().for_each(|s| *s *= temperature);
        scores
    }

    /// Adds to `sums` the contributions of `items` as text neighbours, without the weight β.
    pub(crate) fn add_neighbours(&self, items: &[u32], sums: &mut [f32]) {
        if let Some(text) = &self.text {
            let known = items.iter().map(|&i| i as usize).filter(|&i| i < self.degrees.len());
            known.for_each(|item| text.add(item, 1.0, sums));
        }
    }

    /// Returns the items with `item` among their text neighbours.
    pub(crate) fn neighbour_targets(&self, item: usize) -> &[u32] {
        self.text.as_ref().map_or(&[], |text| text.row(item).0)
    }

    /// Returns the factor by which the contributions of an item's text neighbours are multiplied,
    /// without the weight β.
    pub(crate) fn neighbour_count(&self, item: usize) -> f32 {
        if self.report.new_items { 1.0 / (1.0 + self.degrees[item] as f32) } else { 1.0 }
    }

    /// Returns the maximum number of text neighbours per item.
    pub(crate) fn text_neighbours(&self) -> usize {
        self.ease.leave.text_neighbours
    }

    /// Stores `near` as the text neighbours of a new item, and adds the item to the neighbours of
    /// each item in `near`.
    pub(crate) fn put_neighbours(&mut self, item: u32, near: &[(u32, f32)]) {
        if let Some(text) = &mut self.text {
            let text = Arc::make_mut(text);
            let weight = |cosine: f32| cosine.powi(crate::fit::POWER);
            let own = near.iter().map(|&(other, cosine)| (other, weight(cosine))).collect();
            text.replace(item as usize, own);
            near.iter().for_each(|&(other, cosine)| text.put(other as usize, item, weight(cosine)));
        }
    }

    /// Updates the values that are derived from the degrees.
    pub(crate) fn items_changed(&mut self) {
        self.mean_log = mean_log(&self.degrees);
        (self.order, self.popularity) = (OnceLock::new(), OnceLock::new());
    }

    /// Returns the popularity of an item, before it is multiplied by the weight γ.
    pub(crate) fn log_popularity(&self, item: usize) -> f32 {
        self.log_of(self.degrees[item])
    }

    /// Returns the popularity of an item with `degree` interactions, before it is multiplied by the
    /// weight γ.
    pub(crate) fn log_of(&self, degree: u32) -> f32 {
        match degree {
            0 if self.report.new_items => self.mean_log,
            degree => self.logs.get(degree as usize).copied().unwrap_or_else(|| log(degree)),
        }
    }

    /// Returns all items, the most popular first.
    pub(crate) fn by_popularity(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut items: Vec<u32> = (0..self.degrees.len() as u32).collect();
            let popularity = |&item: &u32| self.log_popularity(item as usize);
            items.sort_by(|a, b| popularity(b).total_cmp(&popularity(a)));
            items
        })
    }

    /// Returns the mean of `ln(1 + degree)` over the items with interactions, without a user with
    /// the items `own`.
    fn mean_log_without(&self, own: &[u32]) -> f32 {
        if own.is_empty() {
            return self.mean_log;
        }
        let mut had = self.degrees.iter().filter(|&&degree| degree > 0).count();
        let mut sum = self.mean_log * had as f32;
        for &item in own {
            let degree = self.degrees[item as usize];
            sum += log(degree - 1) - log(degree);
            had -= usize::from(degree == 1);
        }
        sum / had.max(1) as f32
    }
}

/// Returns the mean of `ln(1 + degree)` over the items with interactions.
fn mean_log(degrees: &[u32]) -> f32 {
    let logs = degrees.iter().filter(|&&degree| degree > 0).map(|&degree| log(degree));
    let (sum, had) = logs.fold((0.0, 0usize), |(sum, had), log| (sum + log, had + 1));
    sum / had.max(1) as f32
}

fn log(degree: u32) -> f32 {
    (degree as f32).ln_1p()
}

impl Scorer for LinearModel {
    fn n_items(&self) -> usize {
        self.degrees.len()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            let scores = self.score_items(self.ease.history(user));
            row.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
        }
        Ok(())
    }

    /// Returns `true` for a local model, which computes lists without the scores of all items.
    fn lists_itself(&self) -> bool {
        matches!(self.ease.form(), Form::Local { rank: 0, .. })
    }

    fn top_k(
        &self,
        users: &[u32],
        k: usize,
        excluded: &[Vec<u32>],
    ) -> std::result::Result<Vec<Vec<Ranked>>, ScorerError> {
        let lists = users.par_iter().zip(excluded).map(|(&user, excluded)| {
            let skip = |item: u32| excluded.binary_search(&item).is_ok();
            self.top_items(self.ease.history(user), k, skip)
        });
        Ok(lists.collect())
    }
}
