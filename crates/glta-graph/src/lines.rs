//! Dense node matrices in the layout of the kernels.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Number of columns in one [`Line`].
pub(crate) const WIDTH: usize = 16;

/// Sixteen neighbouring columns of one row, which are exactly one cache line and one AVX-512
/// register.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; WIDTH]);

impl Line {
    pub(crate) const ZERO: Self = Self([0.0; WIDTH]);
}

/// A `(rows, dim)` matrix in panels of sixteen columns, stored one after the other: `lines[panel *
/// rows + row]`. Columns beyond `dim` are zero.
///
/// A gather of one panel reads one cache line per row. Consecutive rows are adjacent, so a block of
/// rows fits a cache without conflicts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panels {
    rows: usize,
    dim: usize,
    lines: Vec<Line>,
}

impl Panels {
    pub(crate) fn zeros(rows: usize, dim: usize) -> Self {
        let panels = dim.div_ceil(WIDTH);
        Self { rows, dim, lines: vec![Line::ZERO; rows * panels] }
    }

    /// Creates panels whose row `r` is row `order[r]` of `matrix`.
    pub(crate) fn from_rows(matrix: ArrayView2<'_, f32>, order: &[u32]) -> Self {
        let (rows, dim) = (order.len(), matrix.ncols());
        let mut out = Self::zeros(rows, dim);
        if rows > 0 {
            out.lines.par_chunks_mut(rows).enumerate().for_each(|(panel, lines)| {
                let columns = panel * WIDTH..dim.min((panel + 1) * WIDTH);
                for (line, &original) in lines.iter_mut().zip(order) {
                    for (slot, column) in columns.clone().enumerate() {
                        line.0[slot] = matrix[(original as usize, column)];
                    }
                }
            });
        }
        out
    }

    /// Returns a matrix whose row `order[r]` is row `r` of the panels.
    pub(crate) fn to_rows(&self, order: &[u32]) -> Array2<f32> {
        let mut out = Array2::zeros((self.rows, self.dim));
        for panel in 0..self.panels() {
            let columns = panel * WIDTH..self.dim.min((panel + 1) * WIDTH);
            for (line, &original) in self.panel(panel).iter().zip(order) {
                for (slot, column) in columns.clone().enumerate() {
                    out[(original as usize, column)] = line.0[slot];
                }
            }
        }
        out
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn panels(&self) -> usize {
        self.dim.div_ceil(WIDTH)
    }

    pub(crate) fn panel(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.rows..(panel + 1) * self.rows]
    }

    /// Iterates over the panels, which can be written independently.
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = &mut [Line]> {
        self.lines.chunks_mut(self.rows.max(1))
    }
}

/// A matrix of users and a matrix of items.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nodes {
    pub(crate) users: Panels,
    pub(crate) items: Panels,
}

impl Nodes {
    pub(crate) fn zeros(users: usize, items: usize, dim: usize) -> Self {
        Self { users: Panels::zeros(users, dim), items: Panels::zeros(items, dim) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_panel_layout_and_reordering() {
        let matrix = Array2::from_shape_fn((5, 37), |(r, c)| (r * 100 + c) as f32);
        let order = [3, 0, 4, 1, 2];
        let panels = Panels::from_rows(matrix.view(), &order);
        assert_eq!(panels.panels(), 3);
        assert_eq!(panels.panel(2)[0].0[..5], [332., 333., 334., 335., 336.]);
        assert_eq!(panels.panel(2)[0].0[5..], [0.0; 11]);
        assert_eq!(panels.to_rows(&order), matrix);
    }
}
