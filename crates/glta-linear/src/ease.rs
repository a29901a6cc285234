//! The EASE model, in its dense and its local form.

use std::sync::{Arc, OnceLock};

use glta_data::Interactions;
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::idle::Idle;
use crate::solve::counts::{Counts, counted};
use crate::solve::gram::{Gram, Own, Scratch};
use crate::solved::Solved;
use crate::sparse::SparseRows;
use crate::weights::Weights;
use crate::{Error, Form, Result, TextVectors};

/// Settings of [`Ease`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EaseConfig {
    /// L2 regularisation `λ`, added to the diagonal of the Gram matrix. Choose the value on
    /// validation data; 100 to 1000 is usual. Default 400.
    pub l2: f64,
    /// The form of the weights. Default [`Form::Dense`].
    pub form: Form,
    /// Maximum number of items for the dense form. Default 20,000 (6.4 GB).
    pub max_items: usize,
    /// Maximum number of co-occurring items per item that the local form keeps: those with the
    /// largest `count / √(degree + 1)`. Default 256.
    pub rows: usize,
    /// Maximum number of text neighbours per item that are candidates for sources in the local
    /// form. Default 128.
    pub text_neighbours: usize,
}

impl Default for EaseConfig {
    fn default() -> Self {
        let (max_items, rows, text_neighbours) = (20_000, 256, 128);
        Self { l2: 400.0, form: Form::Dense, max_items, rows, text_neighbours }
    }
}

impl EaseConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `l2` is not positive and finite, or a size is 0.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, problem| Err(Error::Config { system: "EASE", field, problem });
        if !(self.l2 > 0.0 && self.l2.is_finite()) {
            return invalid("l2", format!("{} is not a positive number", self.l2));
        }
        let sources = match self.form {
            Form::Dense => 1,
            Form::Local { sources, .. } => sources,
        };
        let sizes =
            [("sources", sources), ("rows", self.rows), ("text_neighbours", self.text_neighbours)];
        match sizes.into_iter().find(|&(_, size)| size == 0) {
            None => self.form.check().or_else(|problem| invalid("form", problem)),
            Some((field, _)) => invalid(field, "must be at least 1".into()),
        }
    }
}

/// EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"): a linear item-item
/// model with a zero diagonal, in closed form.
///
/// With `P = (XᵀX + λI)⁻¹`, the weights are `B_ij = -P_ij / P_jj` with a zero diagonal, and a user
/// with items `x` has the scores `x B`. In the local form, each column of `B` is computed from a
/// small linear system over the item's sources only.
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
#[derive(Debug)]
pub struct Ease {
    pub(crate) weights: Weights,
    /// The diagonal entries `P_jj`, `(items,)`, which [`Ease::score_without`] reads.
    pub(crate) diagonal: Vec<f64>,
    history: Interactions,
    /// Histories of users that changed after the fit.
    pub(crate) changed: FxHashMap<u32, Vec<u32>>,
    /// Whether the model is part of a [`Growing`](crate::Growing) model, which then owns the Gram
    /// matrix and the sources of the local form.
    pub(crate) grows: bool,
    pub(crate) form: Form,
    /// Facts about the solution of the local systems; the default value for a model from a file.
    pub(crate) solved: Solved,
    pub(crate) leave: Leave,
    /// Entries of the linear systems of the local form, computed on first use.
    gram: OnceLock<Gram>,
    /// The sources of item `j` in row `j` in the local form, computed on first use.
    columns: OnceLock<SparseRows>,
    idle: Idle<Scratch>,
}

/// Parameters of the fit that [`Ease::score_without`] of a local model needs.
#[derive(Debug, Clone)]
pub(crate) struct Leave {
    pub(crate) l2: f64,
    /// Weight of the text vectors in the Gram matrix.
    pub(crate) weight: f64,
    pub(crate) rows: usize,
    pub(crate) text_neighbours: usize,
    pub(crate) text: Option<TextVectors>,
}

impl Ease {
    /// Creates a model from its weights.
    pub(crate) fn new(
        weights: Weights,
        diagonal: Vec<f64>,
        train: &Interactions,
        form: Form,
        leave: Leave,
        gram: Option<Gram>,
    ) -> Self {
        Self {
            weights,
            diagonal,
            history: train.clone(),
            changed: FxHashMap::default(),
            grows: false,
            form,
            solved: Solved::default(),
            leave,
            gram: gram.map(OnceLock::from).unwrap_or_default(),
            columns: OnceLock::new(),
            idle: Idle::default(),
        }
    }

    /// Returns the form of the weights.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns `B_ij`, the contribution of item `i` to the score of item `j`; 0 for unknown items.
    pub fn weight(&self, i: u32, j: u32) -> f32 {
        let items = self.n_items();
        if i as usize >= items || j as usize >= items {
            return 0.0;
        }
        self.weights.get(i as usize, j as usize)
    }

    /// Returns the training items of a user, in ascending order.
    pub fn history(&self, user: u32) -> &[u32] {
        self.changed.get(&user).map_or_else(|| self.history.items(user), Vec::as_slice)
    }

    /// Returns the diagonal of `P`, `(items,)`.
    pub fn diagonal(&self) -> &[f64] {
        &self.diagonal
    }

    /// Returns the scores of all items from `context`, a part of the user's items, with the weights
    /// of a fit without this user. Other items in `context` are ignored. Use these scores to train
    /// a model on the user's other items.
    ///
    /// In the dense form, the result is exact: one rank-one change of `P` (Sherman and Morrison) in
    /// `O(user's items × items)`. In the local form, the columns of the user's items are solved
    /// again without the user, from the same sources, and the other columns get the rank-one
    /// change. With a low-rank part, all columns get the rank-one change.
    ///
    /// # Errors
    /// Returns [`Error::User`] for an unknown user, and [`Error::TextVectors`] for a model that was
    /// loaded without the text vectors of the fit.
    pub fn score_without(&self, user: u32, context: &[u32]) -> Result<Vec<f32>> {
        let (n, users) = (self.n_items(), self.history.n_users());
        if user as usize >= users && !self.changed.contains_key(&user) {
            return Err(Error::User { user, users });
        }
        // q = P r for the user's row r of X. P_ij = -B_ij P_jj off the diagonal.
        let own = self.history(user);
        let mut context = context.to_vec();
        context.sort_unstable();
        let (known, hidden): (Vec<u32>, Vec<u32>) =
            own.iter().partition(|item| context.binary_search(item).is_ok());
        // Read each row only once.
        let (sums, rest) = (self.minus_rows(&known), self.minus_rows(&hidden));
        let q: Vec<f64> = (0..n).map(|j| f64::from(sums[j] + rest[j]) * self.diagonal[j]).collect();
        // The value is positive in the dense form, where P is one matrix.
        let left = (1.0 - own.iter().map(|&i| q[i as usize]).sum::<f64>()).max(1e-3);
        let q_context: f64 = known.iter().map(|&i| q[i as usize]).sum();
        let mut scores: Vec<f32> = (0..n)
            .map(|j| {
                let diagonal = self.diagonal[j] + q[j] * q[j] / left;
                (-(f64::from(sums[j]) * self.diagonal[j] + q_context * q[j] / left) / diagonal)
                    as f32
            })
            .collect();
        // The diagonal of B is zero.
        for &item in &known {
            scores[item as usize] += 1.0;
        }
        if let Form::Local { rank: 0, .. } = self.form {
            self.solve_again(user, &known, &mut scores)?;
        }
        Ok(scores)
    }

    /// Moves the data of the local systems out of the model: the Gram matrix, and the sources and
    /// weights of each item.
    pub(crate) fn take_system(&mut self) -> Result<(Gram, SparseRows)> {
        self.gram()?;
        self.columns();
        self.grows = true;
        match (self.gram.take(), self.columns.take()) {
            (Some(gram), Some(columns)) => Ok((gram, columns)),
            _ => Err(Error::NotPositiveDefinite { l2: self.leave.l2 }),
        }
    }

    /// Moves the data that [`take_system`](Self::take_system) returned back into the model.
    pub(crate) fn put_system(&mut self, gram: Gram, columns: SparseRows) {
        (self.gram, self.columns) = (OnceLock::from(gram), OnceLock::from(columns));
        self.grows = false;
    }

    /// Replaces the scores of the user's items, with columns that are solved again without the
    /// user. `known` are the user's items from which scores are computed.
    fn solve_again(&self, user: u32, known: &[u32], scores: &mut [f32]) -> Result<()> {
        if self.grows {
            return Err(Error::Grow(
                "scores without a user are not available while the model grows".into(),
            ));
        }
        let own = self.history(user);
        // Only some pairs of a long list were counted.
        let own = Own { items: own, counted: &counted(user, own) };
        let gram = self.gram()?;
        let columns = self.columns();
        let new = || Scratch::new(self.n_items());
        self.idle.with(new, |scratch| {
            for &item in own.items {
                let sources = columns.row(item as usize).0;
                let column = gram.column(item as usize, sources, own, scratch)?;
                let heard = sources.iter().zip(&column.weights);
                let heard = heard.filter(|(source, _)| known.binary_search(source).is_ok());
                scores[item as usize] = heard.map(|(_, weight)| weight).sum::<f64>() as f32;
            }
            Ok(())
        })
    }

    fn gram(&self) -> Result<&Gram> {
        if let Some(gram) = self.gram.get() {
            return Ok(gram);
        }
        let Leave { l2, weight, rows, text, .. } = &self.leave;
        let text = text.clone().filter(|_| *weight > 0.0);
        if text.is_none() && *weight > 0.0 {
            let problem = "the model was loaded without them";
            return Err(Error::TextVectors(problem.into()));
        }
        // Use the same number of sources as the fit.
        let others = self.n_items().saturating_sub(1);
        let all = matches!(self.form, Form::Local { sources, .. } if sources >= others);
        let rows = if all { usize::MAX } else { *rows };
        let counts = Arc::new(Counts::new(&self.history, rows, &mut |_| Ok(()))?);
        let degrees = Arc::new(self.history.item_degrees());
        let text = text.map(|text| {
            let squares = Arc::new(text.squares());
            (text, squares)
        });
        let gram = Gram { counts, degrees, text, later: Vec::new(), weight: *weight, l2: *l2 };
        Ok(self.gram.get_or_init(|| gram))
    }

    fn columns(&self) -> &SparseRows {
        self.columns.get_or_init(|| match &self.weights {
            Weights::Local { rows, .. } => rows.transpose(),
            Weights::Dense(_) => SparseRows::new(),
        })
    }

    /// Returns the scores of all items for a user with `items`, `(items,)`. Unknown ids are
    /// ignored.
    pub fn score_items(&self, items: &[u32]) -> Vec<f32> {
        let mut scores = vec![0.0; self.n_items()];
        self.weights.add(items, &mut scores);
        scores
    }

    /// Returns `Σ P_ij / P_jj` over `items`, `(items,)`.
    fn minus_rows(&self, items: &[u32]) -> Vec<f32> {
        let mut sum = self.score_items(items);
        sum.iter_mut().for_each(|s| *s = -*s);
        items.iter().for_each(|&item| sum[item as usize] += 1.0);
        sum
    }
}

impl Scorer for Ease {
    fn n_items(&self) -> usize {
        self.weights.n_items()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            let scores = self.score_items(self.history(user));
            row.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Returns `Σ (x - xB)² + λ Σ B²`, which EASE minimises subject to a zero diagonal.
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

    fn dense(ease: &Ease) -> Array2<f32> {
        let n = ease.n_items();
        let rows: Vec<f32> = (0..n as u32).flat_map(|item| ease.score_items(&[item])).collect();
        Array2::from_shape_vec((n, n), rows).unwrap()
    }

    fn train() -> Interactions {
        let pairs = (0..40u32).flat_map(|u| (0..9u32).map(move |i| (u, i)));
        let kept = pairs.filter(|(u, i)| (u * 7 + i * i * 3 + u * i) % 4 == 0);
        Interactions::from_pairs(40, 9, kept).unwrap()
    }

    /// Returns `train` without a user's items, or with the additional users `more`.
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
        let vectors = TextVectors::new(vectors).unwrap();
        let with = Ease::fit_collective(&train(), &vectors, 1.0, &config).unwrap();
        let stacked = Ease::fit(&changed(None, &tags), &config).unwrap();
        for (a, b) in dense(&with).iter().zip(&dense(&stacked)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        let none = Ease::fit_collective(&train(), &vectors, 0.0, &config).unwrap();
        assert_eq!(dense(&none), dense(&Ease::fit(&train(), &config).unwrap()));

        let short = TextVectors::new(Array2::zeros((8, 2))).unwrap();
        let message = Ease::fit_collective(&train(), &short, 1.0, &config).unwrap_err();
        assert!(message.to_string().contains("expected 9"), "{message}");
        assert!(Ease::fit_collective(&train(), &vectors, f64::NAN, &config).is_err());
    }

    #[test]
    fn one_user_is_removed_exactly() {
        let config = EaseConfig { l2: 3.0, ..Default::default() };
        let ease = Ease::fit(&train(), &config).unwrap();
        for user in (0..40).filter(|&u| train().items(u).len() > 1) {
            let context = &train().items(user)[1..].to_vec();
            let without = Ease::fit(&changed(Some(user), &[]), &config).unwrap();
            let expected = without.score_items(context);
            let got = ease.score_without(user, context).unwrap();
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            let leaky = ease.score_items(context);
            assert!(leaky.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-3));
        }
        // Items of other users and repeated items are ignored.
        let user = (0..40).find(|&u| !train().items(u).is_empty()).unwrap();
        let (own, other) = (train().items(user)[0], (0..9).find(|&i| !train().contains(user, i)));
        let odd = ease.score_without(user, &[own, other.unwrap(), own, 9]).unwrap();
        assert_eq!(odd, ease.score_without(user, &[own]).unwrap());
        assert!(ease.score_without(40, &[0]).is_err());
    }

    #[test]
    fn weights_are_a_minimum_of_the_objective() {
        let (train, l2) = (train(), 3.0);
        let config = EaseConfig { l2, ..Default::default() };
        let ease = Ease::fit(&train, &config).unwrap();
        let weights = dense(&ease).mapv(f64::from);
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
    fn scores_of_a_user_are_scores_of_the_items() {
        let train = train();
        let ease = Ease::fit(&train, &EaseConfig::default()).unwrap();
        let mut out = Array2::ones((2, 9));
        ease.score(&[3, 17], out.view_mut()).unwrap();
        assert_eq!(out.row(1).to_vec(), ease.score_items(train.items(17)));
        assert!(ease.score_items(&[]).iter().all(|&s| s == 0.0));
    }

    #[test]
    fn invalid_settings_and_data_are_errors() {
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
