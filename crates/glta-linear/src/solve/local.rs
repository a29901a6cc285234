//! Columns of the weights, each solved over a few sources (Steck 2019, "Markov Random Fields for
//! Collaborative Filtering", with one block per item).

use std::ops::Range;

use super::gram::{Gram, Own, Scratch};
use crate::ranges::in_ranges;
use crate::sparse::{Piece, SparseRows};
use crate::{Error, Result};

/// One column of the weights.
pub(crate) struct Column {
    /// Weights of the sources, in their order.
    pub(crate) weights: Vec<f64>,
    /// `P_jj` of the local system.
    pub(crate) diagonal: f64,
    /// Whether the diagonal had to be raised.
    pub(crate) raised: bool,
}

/// All columns.
pub(crate) struct Columns {
    /// Row `j` has the sources of item `j` and their weights.
    pub(crate) columns: SparseRows,
    /// `P_jj`: `(items,)`.
    pub(crate) diagonal: Vec<f64>,
    /// Number of systems whose diagonal had to be raised.
    pub(crate) raised: usize,
}

impl Gram {
    /// The weights `A_SS⁻¹ A_Sj` that predict `item` from `sources`, which must not contain it. A
    /// user who has `own` is left out.
    pub(crate) fn column(
        &self,
        item: usize,
        sources: &[u32],
        own: Own<'_>,
        scratch: &mut Scratch,
    ) -> Result<Column> {
        scratch.members.clear();
        scratch.members.extend_from_slice(sources);
        self.solve_members(item, own, scratch)
    }

    /// [`column`](Self::column) for the sources in `scratch.members`.
    fn solve_members(&self, item: usize, own: Own<'_>, scratch: &mut Scratch) -> Result<Column> {
        let n = scratch.members.len();
        // The item is last, so that one factor gives both A_SS⁻¹ A_Sj and P_jj.
        scratch.members.push(item as u32);
        self.fill(own, scratch);
        scratch.members.pop();
        let small = &mut scratch.small;
        let tries =
            small.factor(0.1 * self.l2).ok_or(Error::NotPositiveDefinite { l2: self.l2 })?;
        let mut weights: Vec<f64> = (0..n).map(|column| small.l(n, column)).collect();
        small.backward(&mut weights);
        let diagonal = small.l(n, n).powi(-2);
        Ok(Column { weights, diagonal, raised: tries > 0 })
    }

    /// All columns, with at most `k` sources each. `neighbours` are text neighbours by target.
    pub(crate) fn columns(
        &self,
        neighbours: Option<&SparseRows>,
        k: usize,
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Columns> {
        let n = self.n_items();
        let solve = |scratch: &mut Scratch, range: Range<usize>| -> Result<_> {
            let (mut rows, mut ends) = (Piece::default(), Vec::with_capacity(range.len()));
            for item in range {
                let near = neighbours.map_or(&[][..], |neighbours| neighbours.row(item).0);
                self.sources(item, near, k, scratch);
                let column = self.solve_members(item, Own::default(), scratch)?;
                let weights = column.weights.iter().map(|&w| w as f32);
                rows.push(scratch.members.iter().copied().zip(weights));
                ends.push((column.diagonal, column.raised));
            }
            Ok((rows, ends))
        };
        let (mut diagonal, mut raised) = (Vec::with_capacity(n), 0);
        let mut columns = SparseRows::new();
        let take = |(rows, ends): (Piece, Vec<(f64, bool)>)| {
            columns.push(&rows);
            for (value, again) in ends {
                diagonal.push(value);
                raised += usize::from(again);
            }
        };
        in_ranges(n, || Scratch::new(n), solve, take, advance)?;
        Ok(Columns { columns, diagonal, raised })
    }
}
