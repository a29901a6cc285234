//! Solves the columns of the weights, each over a few sources (Steck 2019, "Markov Random Fields
//! for Collaborative Filtering", with one block per item).

use std::ops::Range;

use super::gram::{Gram, Own, Scratch};
use crate::ranges::in_ranges;
use crate::sparse::{Piece, SparseRows};
use crate::{Error, Result};

/// One column of the weights.
pub(crate) struct Column {
    /// Weights of the sources, in the order of the sources.
    pub(crate) weights: Vec<f64>,
    /// The diagonal entry `P_jj` of the local system.
    pub(crate) diagonal: f64,
    /// Whether the diagonal was raised to make the system positive definite.
    pub(crate) raised: bool,
}

/// All columns of the weights, with facts about their systems.
pub(crate) struct Columns {
    /// The sources of item `j` and their weights in row `j`.
    pub(crate) columns: SparseRows,
    /// The diagonal entries `P_jj`, `(items,)`.
    pub(crate) diagonal: Vec<f64>,
    /// Number of systems whose diagonal was raised.
    pub(crate) raised: usize,
}

impl Gram {
    /// Computes the weights `A_SS⁻¹ A_Sj` that predict `item` from `sources`, which must not
    /// contain the item. The user `own` is left out.
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

    /// Computes [`column`](Self::column) for the sources in `scratch.members`.
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

    /// Solves all columns, with at most `k` sources each. `neighbours` contains text neighbours by
    /// target.
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
