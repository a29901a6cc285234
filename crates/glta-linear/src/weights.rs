//! The contributions of items to each other's scores.

use ndarray::{Array1, Array2, ArrayViewMut1, Zip};

use crate::sparse::SparseRows;

/// The weights `B` of a linear model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Weights {
    /// A matrix `(items, items)`; row `i` contains the contributions of item `i`.
    Dense(Array2<f32>),
    Local {
        rows: SparseRows,
        coarse: Option<Coarse>,
    },
}

/// The low-rank part of `B`, `V Gᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Coarse {
    /// The factor `V: (items, rank)`.
    pub(crate) vectors: Array2<f32>,
    /// The factor `G: (items, rank)`.
    pub(crate) weights: Array2<f32>,
}

impl Weights {
    pub(crate) fn n_items(&self) -> usize {
        match self {
            Self::Dense(weights) => weights.nrows(),
            Self::Local { rows, .. } => rows.n_rows(),
        }
    }

    /// Adds the contributions of `items` to the scores of all items to `sums`. Unknown ids are
    /// ignored.
    pub(crate) fn add(&self, items: &[u32], sums: &mut [f32]) {
        let known = items.iter().map(|&i| i as usize).filter(|&i| i < self.n_items());
        match self {
            Self::Dense(weights) => {
                let known: Vec<usize> = known.collect();
                add_rows(weights, &known, ArrayViewMut1::from(sums));
            }
            Self::Local { rows, coarse } => {
                known.clone().for_each(|item| rows.add(item, 1.0, sums));
                if let Some(Coarse { vectors, weights }) = coarse {
                    let mut person = Array1::zeros(vectors.ncols());
                    known.for_each(|item| person += &vectors.row(item));
                    let mut sums = ArrayViewMut1::from(sums);
                    sums += &weights.dot(&person);
                }
            }
        }
    }

    /// Returns the contribution of item `source` to the score of item `target`.
    pub(crate) fn get(&self, source: usize, target: usize) -> f32 {
        match self {
            Self::Dense(weights) => weights[(source, target)],
            Self::Local { rows, coarse } => {
                let low_rank = coarse.as_ref().map_or(0.0, |Coarse { vectors, weights }| {
                    vectors.row(source).dot(&weights.row(target))
                });
                rows.get(source, target) + low_rank
            }
        }
    }

    /// Returns the items to which an item can contribute; `None` for the dense form and for a
    /// low-rank part, where these can be all items.
    pub(crate) fn targets(&self, item: usize) -> Option<&[u32]> {
        match self {
            Self::Local { rows, coarse: None } => Some(rows.row(item).0),
            _ => None,
        }
    }
}

/// Adds rows of a matrix to `sums`, several rows at a time. The rows are rarely in a cache, and a
/// processor reads several of them faster together than one after the other.
fn add_rows(matrix: &Array2<f32>, rows: &[usize], mut sums: ArrayViewMut1<'_, f32>) {
    let mut groups = rows.chunks_exact(4);
    for group in &mut groups {
        let (a, b) = (matrix.row(group[0]), matrix.row(group[1]));
        let (c, d) = (matrix.row(group[2]), matrix.row(group[3]));
        let together = Zip::from(&mut sums).and(a).and(b).and(c).and(d);
        together.for_each(|sum, a, b, c, d| *sum = *sum + a + b + c + d);
    }
    groups.remainder().iter().for_each(|&last| sums += &matrix.row(last));
}
