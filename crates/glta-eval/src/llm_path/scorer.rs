//! The linear model with an added score.

use std::sync::Arc;

use glta_align::Recommender;
use glta_linear::TextVectors;
use glta_metrics::{Scorer, ScorerError};
use ndarray::{Array2, ArrayViewMut2};

/// The score that is added for each user.
#[derive(Clone)]
pub(crate) enum Extra {
    /// Inner products of a predicted vector per user, `(users, dim)`, with the items' text vectors.
    Text(Arc<Array2<f32>>, TextVectors),
    /// A list of items and scores per user. Nothing is added to the scores of all other items.
    Some(Arc<Vec<Vec<(u32, f32)>>>),
}

impl Extra {
    /// Creates scores of some items per user, standardised for each user.
    pub(crate) fn of_some(mut users: Vec<Vec<(u32, f32)>>) -> Self {
        for items in &mut users {
            standardize(items.iter_mut().map(|(_, score)| score).collect());
        }
        Self::Some(Arc::new(users))
    }

    fn add(&self, user: usize, weight: f32, out: &mut [f32]) {
        match self {
            Self::Text(predicted, texts) => {
                let mut scores = texts.view().dot(&predicted.row(user)).to_vec();
                standardize(scores.iter_mut().collect());
                out.iter_mut().zip(scores).for_each(|(out, score)| *out += weight * score);
            }
            Self::Some(users) => {
                users[user].iter().for_each(|&(item, score)| out[item as usize] += weight * score);
            }
        }
    }
}

/// A scorer that standardises the scores of the linear model for each user and adds a weighted
/// [`Extra`] score.
#[derive(Clone)]
pub(crate) struct Added {
    pub(crate) linear: Arc<Recommender>,
    pub(crate) extra: Extra,
    pub(crate) weight: f32,
}

impl Scorer for Added {
    fn n_items(&self) -> usize {
        self.linear.n_items()
    }

    fn score(&self, users: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        self.linear.score(users, out.view_mut())?;
        if self.weight == 0.0 {
            // Return the original scores, because standardised ones could round to ties.
            return Ok(());
        }
        for (&user, mut row) in users.iter().zip(out.rows_mut()) {
            let mut scores = row.to_vec();
            standardize(scores.iter_mut().collect());
            self.extra.add(user as usize, self.weight, &mut scores);
            row.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
        }
        Ok(())
    }
}

/// Shifts and scales the finite values to mean 0 and standard deviation 1.
fn standardize(values: Vec<&mut f32>) {
    let mut values: Vec<&mut f32> = values.into_iter().filter(|v| v.is_finite()).collect();
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(**v)).sum::<f64>() / n;
    let square = values.iter().map(|v| (f64::from(**v) - mean).powi(2)).sum::<f64>() / n;
    let scale = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    values.iter_mut().for_each(|v| **v = ((f64::from(**v) - mean) * scale) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_values_are_standardised() {
        let mut values = [1.0, f32::NEG_INFINITY, 3.0, 5.0];
        standardize(values.iter_mut().collect());
        let step = 1.5f32.sqrt();
        assert_eq!(values[1], f32::NEG_INFINITY);
        for (value, expected) in
            [values[0], values[2], values[3]].into_iter().zip([-step, 0.0, step])
        {
            assert!((value - expected).abs() < 1e-6);
        }
        let mut equal = [2.0, 2.0];
        standardize(equal.iter_mut().collect());
        assert_eq!(equal, [0.0, 0.0]);
    }
}
