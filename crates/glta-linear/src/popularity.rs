use glta_data::Interactions;
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};

/// A model that scores every item by the number of its training interactions, equally for every
/// user. Every recommender should be better than this model.
///
/// ```
/// use glta_linear::Popularity;
/// use glta_data::Interactions;
///
/// let train = Interactions::from_pairs(3, 2, [(0, 0), (1, 0), (2, 1)])?;
/// assert_eq!(Popularity::fit(&train).counts(), [2, 1]);
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Popularity {
    counts: Vec<u32>,
}

impl Popularity {
    /// Counts the interactions of each item.
    pub fn fit(train: &Interactions) -> Self {
        Self { counts: train.item_degrees() }
    }

    /// Returns the number of interactions of each item, `(items,)`.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }
}

impl Scorer for Popularity {
    fn n_items(&self) -> usize {
        self.counts.len()
    }

    fn score(&self, _: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        for mut row in out.axis_iter_mut(Axis(0)) {
            for (score, &count) in row.iter_mut().zip(&self.counts) {
                *score = count as f32;
            }
        }
        Ok(())
    }
}
