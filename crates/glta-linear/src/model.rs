use std::sync::Arc;

use glta_data::Interactions;
use glta_metrics::{EvaluationConfig, Metric, Scorer, ScorerError, evaluate};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis};

use crate::{Ease, LinearReport, Result, TextKnn, TextKnnConfig};

/// Scores of all items from the items that a person has, in closed form: EASE whose
/// Gram matrix also counts the items' text vectors, `(XᵀX + αTTᵀ + λI)⁻¹`, plus text
/// neighbours `Σ max(0, cos)³`, plus the log of the degree, times a temperature. The
/// few weights are chosen on validation data.
///
/// As a [`Scorer`] it scores the users of the training data from their training items.
///
/// ```
/// use glta_data::Interactions;
/// use glta_linear::{LinearConfig, LinearModel};
/// use ndarray::array;
///
/// // Items 0 and 1 go together. Nobody has item 3, whose text is like that of item 2.
/// let pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 2)];
/// let train = Interactions::from_pairs(4, 4, pairs)?;
/// let vectors = array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 1.0]];
/// let config = LinearConfig::default();
/// let model = LinearModel::fit(&train, None, Some(vectors.view()), &config, 1)?;
/// assert!(model.score_items(&[0])[1] > model.score_items(&[0])[2]);
/// assert!(model.score_items(&[2])[3] > model.score_items(&[2])[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LinearModel {
    pub(crate) ease: Ease,
    /// What items add to each other as text neighbours: `(items, items)`.
    pub(crate) text: Option<Arc<Array2<f32>>>,
    /// Number of users of each item in the training data.
    pub(crate) degrees: Vec<u32>,
    pub(crate) report: LinearReport,
}

impl LinearModel {
    pub(crate) fn new(
        ease: Ease,
        text: Option<Arc<Array2<f32>>>,
        train: &Interactions,
        report: LinearReport,
    ) -> Self {
        Self { ease, text, degrees: train.item_degrees(), report }
    }

    /// The settings that were chosen.
    pub fn report(&self) -> &LinearReport {
        &self.report
    }

    /// Scores of all items for someone with these items, `(items,)`; ids out of range
    /// count for nothing.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        self.finish(self.ease.score_items(items), items, &[])
    }

    /// Scores of all items from `context`, a part of the user's training items, as a
    /// fit without this user would give them: nothing of the user's other items has
    /// been seen.
    ///
    /// # Errors
    /// [`Error::User`](crate::Error::User) for an unknown user.
    pub fn score_without(&self, user: u32, context: &[u32]) -> Result<Vec<f32>> {
        let scores = self.ease.score_without(user, context)?;
        Ok(self.finish(scores, context, self.ease.history(user)))
    }

    /// N@10 on `valid` of users with their items in `train`, which are left out.
    pub(crate) fn validation(
        &self,
        train: &Interactions,
        valid: &Interactions,
    ) -> Result<Option<f64>> {
        if valid.is_empty() {
            return Ok(None);
        }
        let config = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
        Ok(evaluate(self, valid, &[train], &config)?.get(Metric::Ndcg, 10))
    }

    /// EASE's scores from `context` with neighbours and popularity added, times the
    /// temperature. `own` are all items of a user who is left out: each has one
    /// interaction less then.
    fn finish(&self, mut scores: Vec<f32>, context: &[u32], own: &[u32]) -> Vec<f32> {
        let LinearReport { neighbours, popularity, temperature, .. } = self.report;
        if let Some(text) = self.text.as_ref().filter(|_| neighbours > 0.0) {
            let known = context.iter().filter(|&&item| (item as usize) < self.degrees.len());
            let rows = known.map(|&item| text.row(item as usize));
            if self.report.new_items {
                let mut sums = Array1::zeros(scores.len());
                rows.for_each(|row| sums += &row);
                let count = |degree: u32| neighbours / (1.0 + degree as f32);
                let all = scores.iter_mut().zip(&sums).zip(&self.degrees);
                all.for_each(|((s, sum), &degree)| *s += count(degree) * sum);
                for &item in own {
                    let (item, degree) = (item as usize, self.degrees[item as usize]);
                    scores[item] += (count(degree - 1) - count(degree)) * sums[item];
                }
            } else {
                let mut scores = ArrayViewMut1::from(&mut scores[..]);
                rows.for_each(|row| scores.scaled_add(neighbours, &row));
            }
        }
        if popularity > 0.0 {
            let new = if self.report.new_items { self.mean_log_degree(own) } else { 0.0 };
            let log = |degree: u32| match degree {
                0 => popularity * new,
                _ => popularity * (degree as f32).ln_1p(),
            };
            scores.iter_mut().zip(&self.degrees).for_each(|(s, &degree)| *s += log(degree));
            for &item in own {
                let degree = self.degrees[item as usize];
                scores[item as usize] += log(degree - 1) - log(degree);
            }
        }
        scores.iter_mut().for_each(|s| *s *= temperature);
        scores
    }

    /// `ln(1 + degree)` in the mean over the items that somebody has, without someone
    /// who has `own`.
    fn mean_log_degree(&self, own: &[u32]) -> f32 {
        let log = |degree: u32| (degree as f32).ln_1p();
        let mut sum: f32 = self.degrees.iter().map(|&degree| log(degree)).sum();
        let mut had = self.degrees.iter().filter(|&&degree| degree > 0).count();
        for &item in own {
            let degree = self.degrees[item as usize];
            sum += log(degree - 1) - log(degree);
            had -= usize::from(degree == 1);
        }
        sum / had.max(1) as f32
    }
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
}

pub(crate) fn similarities(
    vectors: ArrayView2<'_, f32>,
    train: &Interactions,
) -> Result<Arc<Array2<f32>>> {
    let text = TextKnn::fit(vectors.to_owned(), train, &TextKnnConfig::default())?;
    Ok(Arc::new(text.similarities()))
}
