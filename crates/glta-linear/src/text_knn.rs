use glta_data::Interactions;
use glta_metrics::{Scorer, ScorerError};
use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayViewMut1, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use crate::{Ease, Error, Result};

/// Settings of [`TextKnn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextKnnConfig {
    /// Power of the cosine: the higher, the fewer neighbours count. Default 3.
    pub power: i32,
}

impl Default for TextKnnConfig {
    fn default() -> Self {
        Self { power: 3 }
    }
}

impl TextKnnConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for a power below 1.
    pub fn validate(&self) -> Result<()> {
        if self.power >= 1 {
            return Ok(());
        }
        Err(Error::Config {
            system: "text-kNN",
            field: "power",
            problem: format!("{} is below 1", self.power),
        })
    }
}

/// Nearest neighbours by text alone: an item scores
/// `Σ max(0, cos(t_i, t_j))^power` over the user's items `i`.
///
/// The only baseline here that can rank items nobody has had.
///
/// ```
/// use glta_linear::{TextKnn, TextKnnConfig};
/// use glta_data::Interactions;
/// use ndarray::array;
///
/// let train = Interactions::from_pairs(1, 3, [(0, 0)])?;
/// let vectors = array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]];
/// let knn = TextKnn::fit(vectors, &train, &TextKnnConfig::default())?;
/// let scores = knn.score_items(&[0]);
/// assert!((scores[1] - 0.512).abs() < 1e-6 && scores[2] == 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TextKnn {
    /// `(items, dim)`, rows of length 1 or 0.
    vectors: Array2<f32>,
    history: Interactions,
    power: i32,
}

impl TextKnn {
    /// Neighbours by `vectors: (items, dim)`, scaled to length 1 here; see
    /// [`whiten`](crate::whiten) for what makes good ones. An item without a text
    /// has zeros.
    ///
    /// # Errors
    /// Bad settings, another number of items, or values that are not finite.
    pub fn fit(
        mut vectors: Array2<f32>,
        train: &Interactions,
        config: &TextKnnConfig,
    ) -> Result<Self> {
        config.validate()?;
        if vectors.nrows() != train.n_items() {
            return Err(Error::TextVectors(format!(
                "there are {} for {} items",
                vectors.nrows(),
                train.n_items()
            )));
        }
        for (item, mut row) in vectors.axis_iter_mut(Axis(0)).enumerate() {
            let length = row.dot(&row).sqrt();
            if !length.is_finite() {
                return Err(Error::TextVectors(format!("that of item {item} is not finite")));
            }
            if length > 0.0 {
                row /= length;
            }
        }
        Ok(Self { vectors, history: train.clone(), power: config.power })
    }

    /// Scores of all items for someone with these items; ids out of range count
    /// for nothing.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.n_items()];
        self.add_rows(items, ArrayViewMut1::from(&mut scores[..]), 1.0);
        scores
    }

    /// What one item adds to another's score, for all pairs: `(items, items)`,
    /// symmetric. Sums of its rows are [`score_items`](Self::score_items), in
    /// `O(items)` an item where there is room for `4 · items²` bytes.
    pub fn similarities(&self) -> Array2<f32> {
        let mut all = Array2::zeros((self.n_items(), self.n_items()));
        all.axis_chunks_iter_mut(Axis(0), 64)
            .into_par_iter()
            .zip(self.vectors.axis_chunks_iter(Axis(0), 64))
            .for_each(|(mut block, vectors)| {
                general_mat_mul(1.0, &vectors, &self.vectors.t(), 0.0, &mut block);
                block.mapv_inplace(|cosine| self.weight(cosine));
            });
        all
    }

    /// `scores += weight · Σ max(0, cos)^power`, over the user's items.
    fn add_rows(&self, items: &[u32], mut scores: ArrayViewMut1<'_, f32>, weight: f32) {
        let known: Vec<usize> =
            items.iter().map(|&i| i as usize).filter(|&i| i < self.n_items()).collect();
        let context = self.vectors.select(Axis(0), &known);
        let cosines = self.vectors.dot(&context.t());
        for (score, row) in scores.iter_mut().zip(cosines.axis_iter(Axis(0))) {
            *score += weight * row.iter().map(|&cosine| self.weight(cosine)).sum::<f32>();
        }
    }

    fn weight(&self, cosine: f32) -> f32 {
        cosine.max(0.0).powi(self.power)
    }
}

impl Scorer for TextKnn {
    fn n_items(&self) -> usize {
        self.vectors.nrows()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        out.fill(0.0);
        for (&user, row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            self.add_rows(self.history.items(user), row, 1.0);
        }
        Ok(())
    }
}

/// [`Ease`] with [`TextKnn`]'s scores added: the linear model that a language
/// model has to beat where there are texts.
#[derive(Debug, Clone)]
pub struct EaseText<'a> {
    ease: &'a Ease,
    text: &'a TextKnn,
    weight: f32,
}

impl<'a> EaseText<'a> {
    /// `weight` times the text scores are added; choose it on validation data,
    /// 0.003 to 1 is usual.
    ///
    /// # Errors
    /// A weight that is negative or not finite, or models of other numbers of
    /// items.
    pub fn new(ease: &'a Ease, text: &'a TextKnn, weight: f32) -> Result<Self> {
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(Error::Config {
                system: "EASE + text",
                field: "weight",
                problem: format!("{weight} is not zero or a positive number"),
            });
        }
        if ease.n_items() != text.n_items() {
            return Err(Error::TextVectors(format!(
                "there are {} for {} items of EASE",
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
        self.ease.score(users, out.view_mut())?;
        for (&user, row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            self.text.add_rows(self.text.history.items(user), row, self.weight);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::EaseConfig;

    fn problem() -> (Interactions, Array2<f32>) {
        let pairs = (0..30u32).flat_map(|u| (0..12u32).map(move |i| (u, i)));
        let kept = pairs.filter(|(u, i)| (u * 5 + i * i + u * i) % 3 == 0);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(8);
        let vectors = Array2::from_shape_fn((12, 5), |_| rng.random_range(-1.0f32..1.0));
        (Interactions::from_pairs(30, 12, kept).unwrap(), vectors)
    }

    #[test]
    fn scores_are_the_sum_over_the_users_items() {
        let (train, vectors) = problem();
        let knn = TextKnn::fit(vectors.clone(), &train, &TextKnnConfig { power: 2 }).unwrap();
        let mut out = Array2::ones((2, 12));
        knn.score(&[4, 9], out.view_mut()).unwrap();
        let cosine = |i: usize, j: usize| {
            let (a, b) = (vectors.row(i), vectors.row(j));
            f64::from(a.dot(&b)) / f64::from(a.dot(&a) * b.dot(&b)).sqrt()
        };
        for (row, user) in [4u32, 9].into_iter().enumerate() {
            for j in 0..12 {
                let items = train.items(user).iter();
                let sum: f64 = items.clone().map(|&i| cosine(i as usize, j).max(0.0).powi(2)).sum();
                assert!((f64::from(out[(row, j)]) - sum).abs() < 1e-5, "{user} {j}");
                let sum: f32 = items.map(|&i| knn.similarities()[(i as usize, j)]).sum();
                assert!((out[(row, j)] - sum).abs() < 1e-5, "{user} {j}");
            }
        }
    }

    #[test]
    fn text_is_added_to_ease_with_its_weight() {
        let (train, vectors) = problem();
        let knn = TextKnn::fit(vectors, &train, &TextKnnConfig::default()).unwrap();
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
    fn refuses_what_cannot_work() {
        let (train, mut vectors) = problem();
        let config = TextKnnConfig::default();
        let knn = TextKnn::fit(vectors.clone(), &train, &config).unwrap();
        let ease = Ease::fit(&train, &EaseConfig::default()).unwrap();
        assert!(matches!(EaseText::new(&ease, &knn, f32::NAN), Err(Error::Config { .. })));
        assert!(TextKnn::fit(vectors.clone(), &train, &TextKnnConfig { power: 0 }).is_err());
        let few = vectors.slice(ndarray::s![..5, ..]).to_owned();
        let message = TextKnn::fit(few, &train, &config).unwrap_err().to_string();
        assert!(message.contains("5 for 12 items"), "{message}");
        vectors[(3, 0)] = f32::NAN;
        let message = TextKnn::fit(vectors, &train, &config).unwrap_err().to_string();
        assert!(message.contains("item 3"), "{message}");
    }
}
