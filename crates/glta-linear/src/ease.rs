use glta_data::Interactions;
use glta_linalg::{add_gram, cholesky, gram_of_lower, invert_lower};
use glta_metrics::{Scorer, ScorerError};
use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of [`Ease`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EaseConfig {
    /// L2 regularisation `λ` added to the diagonal of the Gram matrix. Tune it on
    /// validation data: 100 to 1000 is usual. Default 400.
    pub l2: f64,
    /// Refuse more items than this. Fitting takes `12 · items²` bytes, the
    /// fitted model `4 · items²`. Default 20,000 (4.8 GB).
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
/// use glta_linear::{Ease, EaseConfig};
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
    /// `P_jj`, from which the weights without one user are found again.
    diagonal: Vec<f64>,
    history: Interactions,
}

/// Descriptions of the items that count as further rows of the interaction
/// matrix.
#[derive(Debug, Clone, Copy)]
pub struct SideInformation<'a> {
    /// One row an item, zeros where nothing is known: `(items, dim)`.
    pub vectors: ArrayView2<'a, f32>,
    /// How much their Gram matrix counts beside that of the interactions.
    pub weight: f64,
}

impl Ease {
    /// Solves for the weights.
    ///
    /// # Errors
    /// Bad settings, too many items, or a matrix that cannot be inverted.
    pub fn fit(train: &Interactions, config: &EaseConfig) -> Result<Self> {
        Self::solve(train, None, config)
    }

    /// EASE with side information (Jeunen, Van Balen and Goethals 2020,
    /// "Closed-Form Models for Collaborative Filtering with Side-Information",
    /// the collective form): `P = (XᵀX + αTTᵀ + λI)⁻¹` with the items'
    /// descriptions `T` as if their dimensions were users. Items that nobody has
    /// had get weights from their descriptions.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and vectors of another number of items, or a weight
    /// or values that are not finite.
    pub fn fit_collective(
        train: &Interactions,
        side: SideInformation<'_>,
        config: &EaseConfig,
    ) -> Result<Self> {
        let n = side.vectors.nrows();
        if n != train.n_items() {
            let problem = format!("there are {n} for {} items", train.n_items());
            return Err(Error::TextVectors(problem));
        }
        if let Some(((item, _), _)) = side.vectors.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::TextVectors(format!("that of item {item} is not finite")));
        }
        if !(side.weight >= 0.0 && side.weight.is_finite()) {
            return Err(Error::Config {
                system: "EASE",
                field: "weight of the side information",
                problem: format!("{} is not zero or a positive number", side.weight),
            });
        }
        Self::solve(train, Some(side), config)
    }

    fn solve(
        train: &Interactions,
        side: Option<SideInformation<'_>>,
        config: &EaseConfig,
    ) -> Result<Self> {
        config.validate()?;
        let items = train.n_items();
        check_items(items, config.max_items, 12.0)?;
        let mut gram = gram(train, config.l2);
        if let Some(side) = side.filter(|side| side.weight > 0.0) {
            add_gram(&mut gram, side.weight, side.vectors.mapv(f64::from).view())?;
        }
        invert(&mut gram, config.l2)?;
        let inverse = gram;
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
        Ok(Self { weights, diagonal, history: train.clone() })
    }

    /// A model from the weights `B` and the diagonal of `P` of another, fitted on
    /// `train`.
    ///
    /// # Errors
    /// Shapes that do not fit the number of items.
    pub fn from_parts(
        weights: Array2<f32>,
        diagonal: Vec<f64>,
        train: &Interactions,
    ) -> Result<Self> {
        let items = train.n_items();
        if weights.dim() != (items, items) || diagonal.len() != items {
            return Err(Error::Weights {
                rows: weights.nrows(),
                columns: weights.ncols(),
                diagonal: diagonal.len(),
                items,
            });
        }
        Ok(Self { weights, diagonal, history: train.clone() })
    }

    /// The weights `B`: `(items, items)`.
    pub fn weights(&self) -> &Array2<f32> {
        &self.weights
    }

    /// The items of a user that the model was fitted on, ascending.
    pub fn history(&self, user: u32) -> &[u32] {
        self.history.items(user)
    }

    /// The diagonal of `P`: `(items)`.
    pub fn diagonal(&self) -> &[f64] {
        &self.diagonal
    }

    /// Scores of all items from `context`, a part of the user's items (others count
    /// for nothing), under the weights that a fit without this user would have: what
    /// a model may see that is trained on the user's other items. Exact, by one
    /// rank-one change of `P` (Sherman and Morrison) in `O(user's items × items)`.
    ///
    /// # Errors
    /// [`Error::User`] for an unknown user.
    pub fn score_without(&self, user: u32, context: &[u32]) -> Result<Vec<f32>> {
        let (n, users) = (self.n_items(), self.history.n_users());
        if user as usize >= users {
            return Err(Error::User { user, users });
        }
        // q = P r for the user's row r of X. P_ij = -B_ij P_jj off the diagonal.
        let own = self.history.items(user);
        let mut context = context.to_vec();
        context.sort_unstable();
        let (known, hidden): (Vec<u32>, Vec<u32>) =
            own.iter().partition(|item| context.binary_search(item).is_ok());
        // Each row is read once.
        let (sums, rest) = (self.minus_rows(&known), self.minus_rows(&hidden));
        let q: Vec<f64> = (0..n).map(|j| f64::from(sums[j] + rest[j]) * self.diagonal[j]).collect();
        let left = 1.0 - own.iter().map(|&i| q[i as usize]).sum::<f64>();
        let q_context: f64 = known.iter().map(|&i| q[i as usize]).sum();
        let mut scores: Vec<f32> = (0..n)
            .map(|j| {
                let diagonal = self.diagonal[j] + q[j] * q[j] / left;
                (-(f64::from(sums[j]) * self.diagonal[j] + q_context * q[j] / left) / diagonal)
                    as f32
            })
            .collect();
        // The diagonal of B is zero: an item does not speak for itself.
        for &item in &known {
            scores[item as usize] += 1.0;
        }
        Ok(scores)
    }

    /// Scores of all items for someone with these items; ids out of range count
    /// for nothing.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.n_items()];
        self.add_rows(items, ArrayViewMut1::from(&mut scores[..]));
        scores
    }

    /// `Σ P_ij / P_jj` over `items`: `(items)`.
    fn minus_rows(&self, items: &[u32]) -> Vec<f32> {
        let mut sum = self.score_items(items);
        sum.iter_mut().for_each(|s| *s = -*s);
        items.iter().for_each(|&item| sum[item as usize] += 1.0);
        sum
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

/// Refuses matrices over more items than `limit`. Fitting takes `bytes · items²`.
pub(crate) fn check_items(items: usize, limit: usize, bytes: f64) -> Result<()> {
    if items <= limit {
        return Ok(());
    }
    Err(Error::TooManyItems { items, limit, gigabytes: bytes * (items as f64).powi(2) / 1e9 })
}

/// The lower triangle of `XᵀX + λI`: `(items, items)`.
fn gram(train: &Interactions, l2: f64) -> Array2<f64> {
    let items = train.n_items();
    let users_of = train.transpose();
    let mut gram = Array2::zeros((items, items));
    let rows: Vec<_> = gram.axis_iter_mut(Axis(0)).enumerate().collect();
    rows.into_par_iter().for_each(|(item, mut row): (usize, ArrayViewMut1<'_, f64>)| {
        for &user in users_of.items(item as u32) {
            let others = train.items(user).iter().take_while(|&&other| other as usize <= item);
            others.for_each(|&other| row[other as usize] += 1.0);
        }
        row[item] += l2;
    });
    gram
}

/// The lower triangle of the inverse of a positive definite matrix, in place of the matrix's.
fn invert(matrix: &mut Array2<f64>, l2: f64) -> Result<()> {
    cholesky(matrix).map_err(|error| match error {
        glta_linalg::Error::NotPositiveDefinite { .. } => Error::NotPositiveDefinite { l2 },
        other => other.into(),
    })?;
    // A⁻¹ = L⁻ᵀ L⁻¹.
    invert_lower(matrix)?;
    Ok(gram_of_lower(matrix)?)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

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

    /// `train` without a user's items, or with `more` users.
    fn changed(without: Option<u32>, more: &[&[u32]]) -> Interactions {
        let train = train();
        let kept = train.iter().filter(|&(u, _)| Some(u) != without);
        let added =
            more.iter().zip(40u32..).flat_map(|(items, u)| items.iter().map(move |&i| (u, i)));
        Interactions::from_pairs(40 + more.len(), 9, kept.chain(added)).unwrap()
    }

    #[test]
    fn side_information_counts_as_further_users() {
        let config = EaseConfig { l2: 3.0, ..Default::default() };
        let tags: [&[u32]; 2] = [&[0, 3, 8], &[1, 3]];
        let mut vectors = Array2::zeros((9, 2));
        for (tag, items) in tags.iter().enumerate() {
            items.iter().for_each(|&i| vectors[(i as usize, tag)] = 1.0);
        }
        let side = SideInformation { vectors: vectors.view(), weight: 1.0 };
        let with = Ease::fit_collective(&train(), side, &config).unwrap();
        let stacked = Ease::fit(&changed(None, &tags), &config).unwrap();
        for (a, b) in with.weights().iter().zip(stacked.weights()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        let none = SideInformation { weight: 0.0, ..side };
        let none = Ease::fit_collective(&train(), none, &config).unwrap();
        assert_eq!(none.weights(), Ease::fit(&train(), &config).unwrap().weights());

        let short = vectors.slice(ndarray::s![..8, ..]);
        let short = SideInformation { vectors: short, weight: 1.0 };
        let message = Ease::fit_collective(&train(), short, &config).unwrap_err().to_string();
        assert!(message.contains("8 for 9"), "{message}");
        let bad = SideInformation { weight: f64::NAN, ..side };
        assert!(Ease::fit_collective(&train(), bad, &config).is_err());
    }

    #[test]
    fn one_user_is_taken_out_exactly() {
        let config = EaseConfig { l2: 3.0, ..Default::default() };
        let ease = Ease::fit(&train(), &config).unwrap();
        let again = Ease::from_parts(ease.weights().clone(), ease.diagonal().to_vec(), &train());
        for user in (0..40).filter(|&u| train().items(u).len() > 1) {
            let context = &train().items(user)[1..].to_vec();
            let without = Ease::fit(&changed(Some(user), &[]), &config).unwrap();
            let expected = without.score_items(context);
            let got = again.as_ref().unwrap().score_without(user, context).unwrap();
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            let leaky = ease.score_items(context);
            assert!(leaky.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-3));
        }
        // What is not the user's, or comes twice, changes nothing.
        let user = (0..40).find(|&u| !train().items(u).is_empty()).unwrap();
        let (own, other) = (train().items(user)[0], (0..9).find(|&i| !train().contains(user, i)));
        let odd = ease.score_without(user, &[own, other.unwrap(), own, 9]).unwrap();
        assert_eq!(odd, ease.score_without(user, &[own]).unwrap());
        assert!(ease.score_without(40, &[0]).is_err());
        assert!(Ease::from_parts(Array2::zeros((9, 8)), vec![0.0; 9], &train()).is_err());
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
