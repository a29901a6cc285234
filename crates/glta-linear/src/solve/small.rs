//! Cholesky factors of small linear systems.

use ndarray::{Array2, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::{Error, Result};

/// A symmetric linear system of at most a few hundred unknowns, whose memory is reused. Plain loops
/// factor the system, because a blocked factorisation is not faster at this size.
pub(crate) struct Small {
    arch: Arch,
    size: usize,
    /// The values by columns. Only the lower triangle is used.
    values: Vec<f64>,
    factor: Vec<f64>,
}

impl Small {
    pub(crate) fn new() -> Self {
        Self { arch: Arch::new(), size: 0, values: Vec::new(), factor: Vec::new() }
    }

    /// Sets the size to `size` unknowns and all values to zero.
    pub(crate) fn reset(&mut self, size: usize) {
        self.size = size;
        self.values.clear();
        self.values.resize(size * size, 0.0);
    }

    /// Returns the entry of a row and a column. The symmetric entry is stored separately.
    pub(crate) fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.values[column * self.size + row]
    }

    /// Adds `weight` times `values` to a column below the diagonal.
    pub(crate) fn add<'a>(
        &mut self,
        column: usize,
        values: impl Iterator<Item = &'a f32>,
        weight: f64,
    ) {
        let below = &mut self.values[column * self.size + column + 1..(column + 1) * self.size];
        below.iter_mut().zip(values).for_each(|(to, &value)| *to += weight * f64::from(value));
    }

    /// Factors the system. Raises the diagonal by `shift` and then by doubled amounts until the
    /// system is positive definite. Returns the number of raises, or `None` if the system cannot be
    /// factored.
    pub(crate) fn factor(&mut self, shift: f64) -> Option<u32> {
        let n = self.size;
        let mut total = 0.0;
        for tries in 0..40 {
            self.factor.clear();
            self.factor.extend_from_slice(&self.values);
            for k in 0..n {
                self.factor[k * n + k] += total;
            }
            // The operations and their order do not depend on the width of the registers.
            if self.arch.dispatch(Cholesky { matrix: &mut self.factor, n }) {
                return Some(tries);
            }
            total = if total == 0.0 { shift } else { 2.0 * total };
        }
        None
    }

    /// Returns an entry of the factor `L`, on or below the diagonal.
    pub(crate) fn l(&self, row: usize, column: usize) -> f64 {
        self.factor[column * self.size + row]
    }

    /// Replaces `x` by the solution of `L y = x`.
    pub(crate) fn forward(&self, x: &mut [f64]) {
        let n = self.size;
        for column in 0..x.len() {
            let l = &self.factor[column * n..(column + 1) * n];
            x[column] /= l[column];
            let value = x[column];
            for row in column + 1..x.len() {
                x[row] -= value * l[row];
            }
        }
    }

    /// Replaces `x` by the solution of `Lᵀ y = x` for the first `x.len()` unknowns.
    pub(crate) fn backward(&self, x: &mut [f64]) {
        let n = self.size;
        for column in (0..x.len()).rev() {
            let l = &self.factor[column * n..(column + 1) * n];
            let rest: f64 = (column + 1..x.len()).map(|row| l[row] * x[row]).sum();
            x[column] = (x[column] - rest) / l[column];
        }
    }
}

/// The operation that replaces a matrix, stored by columns, by its Cholesky factor. The result is
/// `false` for a matrix that is not positive definite.
struct Cholesky<'a> {
    matrix: &'a mut [f64],
    n: usize,
}

impl WithSimd for Cholesky<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let Self { matrix, n } = self;
        for k in 0..n {
            let (before, rest) = matrix.split_at_mut((k + 1) * n);
            let column = &mut before[k * n + k..];
            let pivot = column[0];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            let root = pivot.sqrt();
            column.iter_mut().for_each(|v| *v /= root);
            for (j, other) in rest.chunks_exact_mut(n).enumerate() {
                let j = j + 1;
                let factor = column[j];
                if factor != 0.0 {
                    let target = &mut other[k + j..];
                    target.iter_mut().zip(&column[j..]).for_each(|(t, v)| *t -= factor * v);
                }
            }
        }
        true
    }
}

/// Makes the columns orthonormal, by applying the inverse Cholesky factor of their products twice.
pub(crate) fn orthonormalise(block: &mut Array2<f64>) -> Result<()> {
    let width = block.ncols();
    for column in 0..width {
        let mut column = block.column_mut(column);
        let length = column.dot(&column).sqrt();
        column.mapv_inplace(|v| v / length.max(f64::MIN_POSITIVE));
    }
    for _ in 0..2 {
        let products = block.t().dot(block);
        // Because of rounding, a column may depend on the others. It then becomes noise of unit
        // norm.
        let mut small = Small::new();
        small.reset(width);
        for column in 0..width {
            for row in column..width {
                *small.at(row, column) = products[(row, column)];
            }
        }
        small.factor(1e-12).ok_or(Error::NotPositiveDefinite { l2: 0.0 })?;
        block.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            let mut values = row.to_vec();
            small.forward(&mut values);
            row.iter_mut().zip(values).for_each(|(to, value)| *to = value);
        });
    }
    Ok(())
}
