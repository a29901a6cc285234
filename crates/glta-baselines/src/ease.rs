use crate::{Error, Result};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, Par};
use glta_data::Interactions;
use glta_metrics::{Scorer, ScorerError};
use ndarray::{Array2, ArrayViewMut1, ArrayViewMut2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Settings of [`Ease`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EaseConfig {
    /// L2 regularisation `λ` added to the diagonal of the Gram matrix. Tune it on
    /// validation data: 100 to 1000 is usual. Default 400.
    pub l2: f64,
    /// Refuse more items than this. Fitting takes `16 · items²` bytes, the
    /// fitted model `4 · items²`. Default 20,000 (6.4 GB).
    pub max_items: usize,
}

impl Default for EaseConfig {
    fn default() -> Self {
        Self { l2: 400.0, max_items: 20_000 }
    }
}

impl EaseConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] unless `l2` is positive and finite.
    pub fn validate(&self) -> Result<()> {
        if self.l2 > 0.0 && self.l2.is_finite() {
            return Ok(());
        }
        Err(Error::Config {
            system: "EASE",
            field: "l2",
            problem: format!("{} is not a positive number", self.l2),
        })
    }
}

/// EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"): a
/// linear item-item model with a zero diagonal, in closed form.
///
/// With `P = (XᵀX + λI)⁻¹`, the weights are `B_ij = -P_ij / P_jj`, 0 on the
/// diagonal, and a user with items `x` scores `x B`.
///
/// ```
/// use glta_baselines::{Ease, EaseConfig};
/// use glta_data::Interactions;
///
/// // Items 0 and 1 go together.
/// let pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 2)];
/// let train = Interactions::from_pairs(4, 3, pairs)?;
/// let ease = Ease::fit(&train, &EaseConfig { l2: 1.0, ..Default::default() })?;
/// let scores = ease.score_items(&[0]);
/// assert!(scores[1] > scores[2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ease {
    weights: Array2<f32>,
    history: Interactions,
}

impl Ease {
    /// Solves for the weights.
    ///
    /// # Errors
    /// Bad settings, too many items, or a matrix that cannot be inverted.
    pub fn fit(train: &Interactions, config: &EaseConfig) -> Result<Self> {
        config.validate()?;
        let items = train.n_items();
        if items > config.max_items {
            return Err(Error::TooManyItems {
                items,
                limit: config.max_items,
                gigabytes: 16.0 * (items as f64).powi(2) / 1e9,
            });
        }
        let inverse = invert(gram(train, config.l2), config.l2)?;
        // The inverse is symmetric and only its lower triangle is there.
        let at = |i: usize, j: usize| {
            if i >= j { inverse[(i, j)] } else { inverse[(j, i)] }
        };
        let diagonal: Vec<f64> = (0..items).map(|j| inverse[(j, j)]).collect();
        let mut weights = Array2::zeros((items, items));
        let rows: Vec<_> = weights.axis_iter_mut(Axis(0)).enumerate().collect();
        rows.into_par_iter().for_each(|(i, mut row)| {
            for (j, weight) in row.iter_mut().enumerate() {
                if i != j {
                    *weight = (-at(i, j) / diagonal[j]) as f32;
                }
            }
        });
        Ok(Self { weights, history: train.clone() })
    }

    /// The weights `B`: `(items, items)`.
    pub fn weights(&self) -> &Array2<f32> {
        &self.weights
    }

    /// Scores of all items for someone with these items; ids out of range count
    /// for nothing.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.n_items()];
        self.add_rows(items, ArrayViewMut1::from(&mut scores[..]));
        scores
    }

    fn add_rows(&self, items: &[u32], mut scores: ArrayViewMut1<'_, f32>) {
        for &item in items {
            if (item as usize) < self.n_items() {
                scores += &self.weights.row(item as usize);
            }
        }
    }
}

impl Scorer for Ease {
    fn n_items(&self) -> usize {
        self.weights.ncols()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        out.fill(0.0);
        for (&user, row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            self.add_rows(self.history.items(user), row);
        }
        Ok(())
    }
}

/// The upper triangle, by rows, of `XᵀX + λI`: to faer, which stores columns,
/// the lower one.
fn gram(train: &Interactions, l2: f64) -> Mat<f64> {
    let items = train.n_items();
    let users_of = train.transpose();
    let mut gram = Mat::<f64>::zeros(items, items);
    let columns: Vec<_> = gram.col_iter_mut().enumerate().collect();
    columns.into_par_iter().for_each(|(item, column)| {
        let Some(column) = column.try_as_col_major_mut() else {
            return;
        };
        let column = column.as_slice_mut();
        for &user in users_of.items(item as u32) {
            let others = train.items(user);
            let from = others.partition_point(|&o| (o as usize) < item);
            for &other in &others[from..] {
                column[other as usize] += 1.0;
            }
        }
        column[item] += l2;
    });
    gram
}

/// The lower triangle of the inverse of a positive definite matrix of which the
/// lower triangle is given.
fn invert(mut matrix: Mat<f64>, l2: f64) -> Result<Mat<f64>> {
    let n = matrix.nrows();
    let par = Par::rayon(0);
    let mut memory = faer::dyn_stack::MemBuffer::new(
        llt::factor::cholesky_in_place_scratch::<f64>(n, par, Default::default()),
    );
    let stack = faer::dyn_stack::MemStack::new(&mut memory);
    llt::factor::cholesky_in_place(
        matrix.as_mut(),
        Default::default(),
        par,
        stack,
        Default::default(),
    )
    .map_err(|_| Error::NotPositiveDefinite { l2 })?;
    let mut inverse_factor = Mat::<f64>::zeros(n, n);
    invert_lower_triangular(inverse_factor.as_mut(), matrix.as_ref(), par);
    // A⁻¹ = L⁻ᵀ L⁻¹, into the memory that held L.
    triangular::matmul(
        matrix.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        inverse_factor.transpose(),
        BlockStructure::TriangularUpper,
        inverse_factor.as_ref(),
        BlockStructure::TriangularLower,
        1.0,
        par,
    );
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// `Σ (x - xB)² + λ Σ B²`, which EASE minimises under a zero diagonal.
    fn objective(train: &Interactions, weights: &Array2<f64>, l2: f64) -> f64 {
        let mut sum = l2 * weights.iter().map(|w| w * w).sum::<f64>();
        for user in 0..train.n_users() as u32 {
            for j in 0..train.n_items() {
                let x = f64::from(u8::from(train.contains(user, j as u32)));
                let items = train.items(user).iter();
                let predicted: f64 = items.map(|&i| weights[(i as usize, j)]).sum();
                sum += (x - predicted).powi(2);
            }
        }
        sum
    }

    fn train() -> Interactions {
        let pairs = (0..40u32).flat_map(|u| (0..9u32).map(move |i| (u, i)));
        let kept = pairs.filter(|(u, i)| (u * 7 + i * i * 3 + u * i) % 4 == 0);
        Interactions::from_pairs(40, 9, kept).unwrap()
    }

    #[test]
    fn weights_are_a_minimum_of_the_objective() {
        let (train, l2) = (train(), 3.0);
        let config = EaseConfig { l2, ..Default::default() };
        let ease = Ease::fit(&train, &config).unwrap();
        let weights = ease.weights().mapv(f64::from);
        let best = objective(&train, &weights, l2);
        for i in 0..9 {
            assert_eq!(weights[(i, i)], 0.0);
            for j in (0..9).filter(|&j| j != i) {
                for change in [-0.01, 0.01] {
                    let mut moved = weights.clone();
                    moved[(i, j)] += change;
                    assert!(objective(&train, &moved, l2) > best, "({i}, {j})");
                }
            }
        }
    }

    #[test]
    fn scoring_a_user_is_scoring_their_items() {
        let train = train();
        let ease = Ease::fit(&train, &EaseConfig::default()).unwrap();
        let mut out = Array2::ones((2, 9));
        ease.score(&[3, 17], out.view_mut()).unwrap();
        assert_eq!(out.row(1).to_vec(), ease.score_items(train.items(17)));
        assert!(ease.score_items(&[]).iter().all(|&s| s == 0.0));
    }

    #[test]
    fn refuses_what_cannot_work() {
        let train = train();
        let config = EaseConfig { max_items: 8, ..Default::default() };
        let message = Ease::fit(&train, &config).unwrap_err().to_string();
        assert!(message.contains("9 items") && message.contains("max_items"), "{message}");
        for l2 in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let config = EaseConfig { l2, ..Default::default() };
            assert!(matches!(Ease::fit(&train, &config), Err(Error::Config { .. })));
        }
    }
}
