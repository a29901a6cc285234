//! The low-rank part of the local form. The largest eigenvectors of `A` are separated before the
//! local systems are solved. Each column of `P` is then the Galerkin solution `W (WᵀAW)⁻¹ Wᵀe_j`
//! over its sources and the eigenvectors, `W = [E_S, V]`. This is two-level domain decomposition
//! with one block per item.

use glta_core::stream;
use glta_data::Interactions;
use glta_linalg::symmetric_eigen;
use ndarray::{Array2, ArrayView2, ArrayViewMut1, Axis, s};
use rand::Rng;
use rayon::prelude::*;

use super::gram::{Gram, Own, Scratch};
use super::small::orthonormalise;
use crate::keep::keep_best;
use crate::ranges::in_ranges;
use crate::sparse::{Piece, SparseRows};
use crate::{Error, Result};

/// Number of columns of the block beyond the rank.
const MORE: usize = 16;
/// Number of subspace iterations.
const ITERATIONS: usize = 12;

/// The largest eigenvalues of `A` and their eigenvectors.
pub(crate) struct Deflation {
    /// Eigenvectors, `(items, rank)`.
    pub(crate) vectors: Array2<f64>,
    pub(crate) values: Vec<f64>,
}

/// Columns of the weights with a separate low-rank part.
pub(crate) struct CoarseColumns {
    /// The sources of item `j`, including the item itself, and their weights in row `j`.
    pub(crate) columns: SparseRows,
    pub(crate) diagonal: Vec<f64>,
    /// The factor `G` of the low-rank part `V Gᵀ` of the weights, `(items, rank)`.
    pub(crate) weights: Array2<f32>,
    pub(crate) raised: usize,
}

/// One column of the weights with a separate low-rank part.
pub(crate) struct CoarseColumn {
    /// Weights of the sources, and of the item itself at the end.
    pub(crate) weights: Vec<f64>,
    pub(crate) coarse: Vec<f64>,
    pub(crate) diagonal: f64,
    pub(crate) raised: bool,
}

/// Computes the eigenvectors of the `rank` largest eigenvalues of `A`, by block subspace iteration.
/// `alive` is called between the iterations.
pub(crate) fn deflate(
    train: &Interactions,
    gram: &Gram,
    rank: usize,
    alive: &mut dyn FnMut() -> Result<()>,
) -> Result<Deflation> {
    let items = train.n_items();
    let width = rank.saturating_add(MORE).min(items);
    if width == 0 {
        return Ok(Deflation { vectors: Array2::zeros((items, 0)), values: Vec::new() });
    }
    let users_of = train.transpose();
    let mut random = stream(0, "coarse part", &[]);
    let mut block = Array2::from_shape_simple_fn((items, width), || {
        if random.random::<bool>() { 1.0 } else { -1.0 }
    });
    for _ in 0..ITERATIONS {
        alive()?;
        orthonormalise(&mut block)?;
        alive()?;
        block = times(train, &users_of, gram, block.view());
    }
    orthonormalise(&mut block)?;
    let image = times(train, &users_of, gram, block.view());
    let small = block.t().dot(&image);
    let small = (&small + &small.t()) * 0.5;
    let rank = rank.min(width);
    let mut eigen = symmetric_eigen(small, rank)?;
    eigen.values.truncate(rank);
    let vectors = block.dot(&eigen.vectors.t());
    Ok(Deflation { vectors: vectors.as_standard_layout().into_owned(), values: eigen.values })
}

/// Computes `A Q`.
fn times(
    train: &Interactions,
    users_of: &Interactions,
    gram: &Gram,
    block: ArrayView2<'_, f64>,
) -> Array2<f64> {
    let sums = |of: &Interactions, from: ArrayView2<'_, f64>| {
        let mut out = Array2::<f64>::zeros((of.n_users(), from.ncols()));
        out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(
            |(row, mut out): (usize, ArrayViewMut1<'_, f64>)| {
                of.items(row as u32).iter().for_each(|&i| out += &from.row(i as usize));
            },
        );
        out
    };
    let mut out = sums(users_of, sums(train, block).view());
    out.scaled_add(gram.l2, &block);
    if let Some((vectors, _)) = gram.text.as_ref().filter(|_| gram.weight > 0.0) {
        let vectors = vectors.view().mapv(f64::from);
        out.scaled_add(gram.weight, &vectors.dot(&vectors.t().dot(&block)));
    }
    out
}

impl Deflation {
    /// Returns `VᵢΛVⱼᵀ` for all `i` of `items` and one `j`, in the order of `items`.
    fn products(&self, items: &[u32], item: usize) -> Vec<f64> {
        let right: Vec<f64> =
            self.values.iter().zip(self.vectors.row(item)).map(|(l, v)| l * v).collect();
        items.iter().map(|&i| dot(self.row(i as usize), &right)).collect()
    }

    fn row(&self, item: usize) -> &[f64] {
        let rank = self.values.len();
        self.vectors.as_slice().map_or(&[], |all| &all[item * rank..(item + 1) * rank])
    }

    /// Returns the diagonal of `R = A − VΛVᵀ`, `(items,)`. Entries are clamped to at least `1e-6 ·
    /// λ`, because rounding can make them smaller.
    pub(crate) fn residual(&self, gram: &Gram) -> Vec<f64> {
        (0..gram.n_items())
            .map(|item| {
                let taken: f64 =
                    self.values.iter().zip(self.row(item)).map(|(l, v)| l * v * v).sum();
                let (whole, floor) = (gram.diagonal(item), 1e-6 * gram.l2);
                (whole - taken).max(floor)
            })
            .collect()
    }

    /// Solves all columns, with at most `k` sources each. `complete` states whether the counts
    /// contain every pair. If they do not, `R` restricted to the sources is assumed to be diagonal,
    /// because zeros for missing pairs would make it indefinite.
    pub(crate) fn columns(
        &self,
        gram: &Gram,
        neighbours: Option<&SparseRows>,
        k: usize,
        complete: bool,
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<CoarseColumns> {
        let n = gram.n_items();
        let residual = self.residual(gram);
        let solve = |scratch: &mut Scratch, item: usize| -> Result<_> {
            let near = neighbours.map_or(&[][..], |neighbours| neighbours.row(item).0);
            gram.candidates(item, near, scratch);
            let taken = self.products(&scratch.members, item);
            let mut members = std::mem::take(&mut scratch.members);
            for (&other, taken) in members.iter().zip(&taken) {
                let left = f64::from(scratch.strengths[other as usize]) - taken;
                scratch.strengths[other as usize] =
                    (left.abs() / residual[other as usize].sqrt()) as f32;
            }
            keep_best(&mut members, k, |i| scratch.strengths[i as usize]);
            members.sort_unstable();
            let column = if complete {
                self.solved(gram, item, &members, scratch)?
            } else {
                // The strengths have been overwritten.
                gram.candidates(item, near, scratch);
                self.diagonal(item, &members, &scratch.strengths, &residual)
            };
            members.push(item as u32);
            let weights = column.weights.iter().map(|&w| w as f32);
            let mut row: Vec<(u32, f32)> = members.into_iter().zip(weights).collect();
            row.sort_unstable_by_key(|&(source, _)| source);
            Ok((row, column))
        };
        let (mut diagonal, mut raised) = (Vec::with_capacity(n), 0);
        let mut weights = Array2::zeros((n, self.values.len()));
        let mut columns = SparseRows::new();
        in_ranges(
            n,
            || Scratch::new(n),
            |scratch, range| range.map(|item| solve(scratch, item)).collect::<Result<Vec<_>>>(),
            |piece| {
                let mut rows = Piece::default();
                for (row, column) in piece {
                    let at = diagonal.len();
                    for (to, &g) in weights.row_mut(at).iter_mut().zip(&column.coarse) {
                        *to = g as f32;
                    }
                    rows.push(row);
                    diagonal.push(column.diagonal);
                    raised += usize::from(column.raised);
                }
                columns.push(&rows);
            },
            advance,
        )?;
        Ok(CoarseColumns { columns, diagonal, weights, raised })
    }

    /// Solves `R_FF θ = e_j − V_F v_j`, where `F` contains the sources and the item.
    pub(crate) fn solved(
        &self,
        gram: &Gram,
        item: usize,
        sources: &[u32],
        scratch: &mut Scratch,
    ) -> Result<CoarseColumn> {
        let n = sources.len();
        scratch.members.clear();
        scratch.members.extend_from_slice(sources);
        scratch.members.push(item as u32);
        gram.fill(Own::default(), scratch);
        let rows: Vec<usize> = scratch.members.iter().map(|&i| i as usize).collect();
        let vectors = self.vectors.select(Axis(0), &rows);
        let mut scaled = vectors.clone();
        for (mut column, &value) in scaled.axis_iter_mut(Axis(1)).zip(&self.values) {
            column *= value;
        }
        let taken = scaled.dot(&vectors.t());
        for column in 0..=n {
            for row in column..=n {
                *scratch.small.at(row, column) -= taken[(row, column)];
            }
        }
        let tries = scratch.small.factor(0.1 * gram.l2);
        let tries = tries.ok_or(Error::NotPositiveDefinite { l2: gram.l2 })?;
        let mut theta = (-vectors.dot(&vectors.slice(s![n, ..]))).to_vec();
        theta[n] += 1.0;
        scratch.small.forward(&mut theta);
        scratch.small.backward(&mut theta);
        Ok(self.finish(item, sources, theta, tries > 0))
    }

    /// Takes one Jacobi step instead of solving the system. The step is exact if `R` restricted to
    /// the sources is diagonal. `entries` are the entries of `A` between the item and its sources.
    fn diagonal(
        &self,
        item: usize,
        sources: &[u32],
        entries: &[f32],
        residual: &[f64],
    ) -> CoarseColumn {
        let own = self.row(item);
        let theta_own = (1.0 - dot(own, own)) / residual[item];
        let taken = self.products(sources, item);
        let mut theta: Vec<f64> = sources
            .iter()
            .zip(taken)
            .map(|(&source, taken)| {
                let left = f64::from(entries[source as usize]) - taken;
                let right = -dot(self.row(source as usize), own) - left * theta_own;
                right / residual[source as usize]
            })
            .collect();
        theta.push(theta_own);
        self.finish(item, sources, theta, false)
    }

    fn finish(&self, item: usize, sources: &[u32], theta: Vec<f64>, raised: bool) -> CoarseColumn {
        let own = self.row(item);
        let mut coarse: Vec<f64> = own.iter().zip(&self.values).map(|(v, l)| v / l).collect();
        let members = sources.iter().map(|&i| i as usize).chain([item]);
        for (member, theta) in members.zip(&theta) {
            coarse.iter_mut().zip(self.row(member)).for_each(|(g, v)| *g -= theta * v);
        }
        let mine = theta[sources.len()];
        let diagonal = (mine + dot(&coarse, own)).max(f64::MIN_POSITIVE);
        let mut weights: Vec<f64> = theta.iter().map(|theta| -theta / diagonal).collect();
        // Together with the low-rank part, the diagonal of the weights is zero.
        weights[sources.len()] += 1.0;
        coarse.iter_mut().for_each(|g| *g /= -diagonal);
        CoarseColumn { weights, coarse, diagonal, raised }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Use eight sums, which the compiler vectorises.
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}
