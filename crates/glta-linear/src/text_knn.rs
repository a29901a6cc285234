use std::sync::Arc;

use glta_data::Interactions;
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use crate::sparse::SparseRows;
use crate::{Ease, Error, Result, TextNeighbours, TextVectors};

/// Settings of [`TextKnn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextKnnConfig {
    /// Exponent of the cosine. With a higher exponent, fewer neighbours matter. Default 3.
    pub power: i32,
    /// Maximum number of neighbours per item. Default 128.
    pub neighbours: usize,
}

impl Default for TextKnnConfig {
    fn default() -> Self {
        Self { power: 3, neighbours: 128 }
    }
}

/// A nearest-neighbour model that uses texts alone. The score of an item `j` is `Σ max(0, cos(t_i,
/// t_j))^power` over those of the user's items `i` that are among the nearest items of `j`.
///
/// Unlike [`Ease`] without text vectors and [`Popularity`](crate::Popularity), this model
/// distinguishes items without interactions.
///
/// ```
/// use glta_linear::{TextKnn, TextKnnConfig, TextVectors};
/// use glta_data::Interactions;
/// use ndarray::array;
///
/// let train = Interactions::from_pairs(1, 3, [(0, 0)])?;
/// let vectors = TextVectors::new(array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])?;
/// let knn = TextKnn::fit(&vectors, &train, &TextKnnConfig::default())?;
/// let scores = knn.score_items(&[0]);
/// assert!((scores[1] - 0.512).abs() < 1e-6 && scores[2] == 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TextKnn {
    /// Contributions of each item to the scores of its text neighbours, by source.
    rows: Arc<SparseRows>,
    history: Interactions,
}

impl TextKnn {
    /// Finds neighbours by `vectors`, `(items, dim)`. [`whiten`](crate::whiten) makes suitable
    /// vectors.
    ///
    /// # Errors
    /// Returns an error for invalid settings, or for vectors of a different number of items.
    pub fn fit(
        vectors: &TextVectors,
        train: &Interactions,
        config: &TextKnnConfig,
    ) -> Result<Self> {
        vectors.check(train.n_items())?;
        Self::new(&TextNeighbours::find(vectors, config.neighbours)?, train, config.power)
    }

    /// Creates a model from neighbours that are already known.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for a power below 1, and [`Error::TextVectors`] if `near` and
    /// `train` have different numbers of items.
    pub fn new(near: &TextNeighbours, train: &Interactions, power: i32) -> Result<Self> {
        if power < 1 {
            return Err(Error::Config {
                system: "text-kNN",
                field: "power",
                problem: format!("{power} is below 1"),
            });
        }
        if near.n_items() != train.n_items() {
            let (got, items) = (near.n_items(), train.n_items());
            return Err(Error::TextVectors(format!("expected {items}, one per item, got {got}")));
        }
        Ok(Self { rows: Arc::new(near.by_source(power)), history: train.clone() })
    }

    /// Returns the scores of all items for a user with `items`, `(items,)`. Unknown ids are
    /// ignored.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.n_items()];
        self.add(items, 1.0, &mut scores);
        scores
    }

    /// Adds `weight` times the scores for a user with `items` to `sums`.
    fn add(&self, items: &[u32], weight: f32, sums: &mut [f32]) {
        let known = items.iter().map(|&i| i as usize).filter(|&i| i < self.n_items());
        known.for_each(|item| self.rows.add(item, weight, sums));
    }
}

impl Scorer for TextKnn {
    fn n_items(&self) -> usize {
        self.rows.n_rows()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            let scores = self.score_items(self.history.items(user));
            row.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
        }
        Ok(())
    }
}

/// A model that adds the scores of [`Ease`] and [`TextKnn`]. On data with texts, a model with a
/// language model should be better than this model.
///
/// ```
/// use glta_data::Interactions;
/// use glta_linear::{Ease, EaseConfig, EaseText, TextKnn, TextKnnConfig, TextVectors};
/// use glta_metrics::top_k;
/// use ndarray::array;
///
/// let train = Interactions::from_pairs(2, 3, [(0, 0), (1, 0), (1, 1)])?;
/// let ease = Ease::fit(&train, &EaseConfig::default())?;
/// // Item 2 has no interactions, but its text is like that of item 0.
/// let texts = TextVectors::new(array![[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])?;
/// let text = TextKnn::fit(&texts, &train, &TextKnnConfig::default())?;
/// let both = EaseText::new(&ease, &text, 0.1)?;
/// assert_eq!(top_k(&both, &[0], &[&train], 1)?[0][0].item, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EaseText<'a> {
    ease: &'a Ease,
    text: &'a TextKnn,
    weight: f32,
}

impl<'a> EaseText<'a> {
    /// Adds `weight` times the text scores. Choose the weight on validation data; 0.003 to 1 is
    /// usual.
    ///
    /// # Errors
    /// Returns an error for a weight that is negative or not finite, or for models with different
    /// numbers of items.
    pub fn new(ease: &'a Ease, text: &'a TextKnn, weight: f32) -> Result<Self> {
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(Error::Config {
                system: "EASE + text",
                field: "weight",
                problem: format!("{weight} is neither zero nor a positive number"),
            });
        }
        if ease.n_items() != text.n_items() {
            return Err(Error::TextVectors(format!(
                "text-kNN has {} items, EASE has {}",
                text.n_items(),
                ease.n_items()
            )));
        }
        Ok(Self { ease, text, weight })
    }
}

impl Scorer for EaseText<'_> {
    fn n_items(&self) -> usize {
        self.ease.n_items()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            let mut scores = self.ease.score_items(self.ease.history(user));
            self.text.add(self.text.history.items(user), self.weight, &mut scores);
            row.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::EaseConfig;

    fn problem() -> (Interactions, TextVectors) {
        let pairs = (0..30u32).flat_map(|u| (0..12u32).map(move |i| (u, i)));
        let kept = pairs.filter(|(u, i)| (u * 5 + i * i + u * i) % 3 == 0);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(8);
        let vectors = Array2::from_shape_fn((12, 5), |_| rng.random_range(-1.0f32..1.0));
        (Interactions::from_pairs(30, 12, kept).unwrap(), TextVectors::new(vectors).unwrap())
    }

    #[test]
    fn scores_are_the_sum_over_the_users_items() {
        let (train, vectors) = problem();
        let config = TextKnnConfig { power: 2, ..TextKnnConfig::default() };
        let knn = TextKnn::fit(&vectors, &train, &config).unwrap();
        let mut out = Array2::ones((2, 12));
        knn.score(&[4, 9], out.view_mut()).unwrap();
        let cosine = |i: usize, j: usize| {
            let (a, b) = (vectors.view().row(i).to_owned(), vectors.view().row(j).to_owned());
            f64::from(a.dot(&b)) / f64::from(a.dot(&a) * b.dot(&b)).sqrt()
        };
        for (row, user) in [4u32, 9].into_iter().enumerate() {
            for j in 0..12 {
                // An item is not its own neighbour.
                let items = train.items(user).iter().filter(|&&i| i as usize != j);
                let sum: f64 = items.map(|&i| cosine(i as usize, j).max(0.0).powi(2)).sum();
                assert!((f64::from(out[(row, j)]) - sum).abs() < 1e-5, "{user} {j}");
            }
        }
    }

    #[test]
    fn text_is_added_to_ease_with_its_weight() {
        let (train, vectors) = problem();
        let knn = TextKnn::fit(&vectors, &train, &TextKnnConfig::default()).unwrap();
        let ease = Ease::fit(&train, &EaseConfig { l2: 5.0, ..Default::default() }).unwrap();
        let mut got = Array2::zeros((1, 12));
        EaseText::new(&ease, &knn, 0.25).unwrap().score(&[7], got.view_mut()).unwrap();
        let items = train.items(7);
        let (a, b) = (ease.score_items(items), knn.score_items(items));
        for (j, got) in got.iter().enumerate() {
            assert!((got - (a[j] + 0.25 * b[j])).abs() < 1e-6);
        }
    }

    #[test]
    fn invalid_settings_and_data_are_errors() {
        let (train, vectors) = problem();
        let config = TextKnnConfig::default();
        let knn = TextKnn::fit(&vectors, &train, &config).unwrap();
        let ease = Ease::fit(&train, &EaseConfig::default()).unwrap();
        assert!(matches!(EaseText::new(&ease, &knn, f32::NAN), Err(Error::Config { .. })));
        for bad in [
            TextKnnConfig { power: 0, ..config.clone() },
            TextKnnConfig { neighbours: 0, ..config.clone() },
        ] {
            assert!(matches!(TextKnn::fit(&vectors, &train, &bad), Err(Error::Config { .. })));
        }
        let few = vectors.view().slice(ndarray::s![..5, ..]).to_owned();
        let few = TextVectors::new(few).unwrap();
        let message = TextKnn::fit(&few, &train, &config).unwrap_err().to_string();
        assert!(message.contains("expected 12, one per item, got 5"), "{message}");
        let mut bad = vectors.view().to_owned();
        bad[(3, 0)] = f32::NAN;
        let message = TextVectors::new(bad).unwrap_err().to_string();
        assert!(message.contains("item 3"), "{message}");
    }
}
