use crate::Ranked;
use gemm_common::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use std::sync::Arc;

/// The error of a [`Scorer`]: any error of the model.
pub type ScorerError = Box<dyn std::error::Error + Send + Sync>;

/// A model that gives every item a score for a user. A higher score is better.
///
/// ```
/// use glta_metrics::{Scorer, ScorerError, top_k};
/// use ndarray::ArrayViewMut2;
///
/// /// Prefers items with high ids.
/// struct HighIds(usize);
///
/// impl Scorer for HighIds {
///     fn n_items(&self) -> usize {
///         self.0
///     }
///
///     fn score(&self, _: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
///         out.indexed_iter_mut().for_each(|((_, item), score)| *score = item as f32);
///         Ok(())
///     }
/// }
///
/// assert_eq!(top_k(&HighIds(5), &[0], &[], 1)?[0][0].item, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Scorer: Sync {
    /// Returns the number of items, which is the width of a row of scores.
    fn n_items(&self) -> usize;

    /// Writes the scores of all items for `users` into `out: (users.len(), n_items)`; row `r`
    /// belongs to `users[r]`.
    ///
    /// A score of −∞ excludes the item for this user.
    ///
    /// # Errors
    /// Returns any error of the model.
    fn score(
        &self,
        users: &[u32],
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError>;

    /// Returns whether [`score_items`](Self::score_items) is supported. A large catalogue is then
    /// scored in blocks of items, which stay in the cache. Default `false`.
    fn scores_item_ranges(&self) -> bool {
        false
    }

    /// Writes the scores of the items `first_item..first_item + out.ncols()` for `users` into `out:
    /// (users.len(), items in the range)`.
    ///
    /// # Errors
    /// Returns the errors of [`score`](Self::score). The default implementation returns an error.
    fn score_items(
        &self,
        _users: &[u32],
        _first_item: usize,
        _out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        Err("this scorer can only score all items at once".into())
    }

    /// Returns whether [`top_k`](Self::top_k) computes the lists, because they do not follow from
    /// scores of single items. The rankings are then these lists, and [`score`](Self::score) is not
    /// called for them. Default `false`.
    fn lists_itself(&self) -> bool {
        false
    }

    /// Returns the best `k` items of each of `users`, best first. A list is shorter if fewer items
    /// are left. `excluded[n]` contains, in ascending order, the items that the list of `users[n]`
    /// must not contain.
    ///
    /// # Errors
    /// Returns any error of the model. The default implementation returns an error.
    fn top_k(
        &self,
        _users: &[u32],
        _k: usize,
        _excluded: &[Vec<u32>],
    ) -> std::result::Result<Vec<Vec<Ranked>>, ScorerError> {
        Err("this scorer makes no lists of its own".into())
    }

    /// Returns whether several threads may score blocks of users at once. Default `true`.
    ///
    /// A scorer that uses all cores itself, such as a language model, returns `false` and receives
    /// one block at a time.
    fn parallel(&self) -> bool {
        true
    }
}

/// Passes every call to the shared scorer.
impl<S: Scorer + Send + ?Sized> Scorer for Arc<S> {
    fn n_items(&self) -> usize {
        (**self).n_items()
    }

    fn score(
        &self,
        users: &[u32],
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        (**self).score(users, out)
    }

    fn scores_item_ranges(&self) -> bool {
        (**self).scores_item_ranges()
    }

    fn score_items(
        &self,
        users: &[u32],
        first_item: usize,
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        (**self).score_items(users, first_item, out)
    }

    fn lists_itself(&self) -> bool {
        (**self).lists_itself()
    }

    fn top_k(
        &self,
        users: &[u32],
        k: usize,
        excluded: &[Vec<u32>],
    ) -> std::result::Result<Vec<Vec<Ranked>>, ScorerError> {
        (**self).top_k(users, k, excluded)
    }

    fn parallel(&self) -> bool {
        (**self).parallel()
    }
}

/// A scorer by the inner product of a user vector and an item vector.
///
/// ```
/// use glta_metrics::{DotScorer, Scorer};
/// use ndarray::{Array2, array};
///
/// let users = array![[1.0, 0.0], [0.0, 2.0]];
/// let items = array![[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]];
/// let scorer = DotScorer { users: users.view(), items: items.view() };
/// let mut scores = Array2::zeros((1, 3));
/// scorer.score(&[1], scores.view_mut())?;
/// assert_eq!(scores, array![[8.0, 12.0, 16.0]]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DotScorer<'a> {
    /// User vectors `(users, dim)`.
    pub users: ArrayView2<'a, f32>,
    /// Item vectors `(items, dim)`.
    pub items: ArrayView2<'a, f32>,
}

impl Scorer for DotScorer<'_> {
    fn n_items(&self) -> usize {
        self.items.nrows()
    }

    fn score(
        &self,
        users: &[u32],
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        if out.ncols() != self.n_items() {
            let (got, wanted) = (out.ncols(), self.n_items());
            return Err(format!("the output has {got} columns for {wanted} items").into());
        }
        self.score_items(users, 0, out)
    }

    fn scores_item_ranges(&self) -> bool {
        true
    }

    fn score_items(
        &self,
        users: &[u32],
        first_item: usize,
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        let dim = self.items.ncols();
        if self.users.ncols() != dim {
            return Err(format!(
                "user vectors have {} dimensions, item vectors {dim}",
                self.users.ncols()
            )
            .into());
        }
        let last_item = first_item + out.ncols();
        if out.nrows() != users.len() || last_item > self.n_items() {
            return Err(format!(
                "the output is {:?} for {} users and items from {first_item} of {}",
                out.dim(),
                users.len(),
                self.n_items()
            )
            .into());
        }
        if let Some(user) = users.iter().find(|&&u| u as usize >= self.users.nrows()) {
            return Err(format!(
                "user {user} has no vector: there are {} users",
                self.users.nrows()
            )
            .into());
        }
        let rows: Vec<usize> = users.iter().map(|&u| u as usize).collect();
        // A contiguous copy, (users.len(), dim).
        let gathered = self.users.select(Axis(0), &rows);
        let items = self.items.slice(s![first_item..last_item, ..]);
        let (m, n, k) = (users.len(), items.nrows(), dim);
        let (out_strides, user_strides, item_strides) = (
            [out.strides()[0], out.strides()[1]],
            [gathered.strides()[0], gathered.strides()[1]],
            [items.strides()[0], items.strides()[1]],
        );
        // SAFETY: pointers, shapes and strides come from live array views with the shapes checked
        // above: out (m, n), gathered (m, k), and items (n, k), read as its transpose (k, n). `out`
        // is borrowed mutably, so it overlaps neither input.
        unsafe {
            gemm_f32::gemm::f32::get_gemm_fn()(
                m,
                n,
                k,
                out.as_mut_ptr(),
                out_strides[1],
                out_strides[0],
                false,
                gathered.as_ptr(),
                user_strides[1],
                user_strides[0],
                items.as_ptr(),
                item_strides[0],
                item_strides[1],
                0.0,
                1.0,
                false,
                false,
                false,
                // The blocks of users are computed in parallel, so each product uses one thread.
                Parallelism::None,
            );
        }
        Ok(())
    }
}
