use ndarray::{Array2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// Number of rows from which a matrix is reduced on several threads.
const PARALLEL_FROM: usize = 192;

/// The Householder reflections of a tridiagonal reduction.
pub(crate) struct Reflections {
    /// Vectors of the reflections, `(n, n)`. Row `k` contains vector `k`, right of the diagonal.
    vectors: Array2<f64>,
    /// Factors of the reflections: reflection `k` is `1 - factors[k] · v vᵀ`.
    factors: Vec<f64>,
}

impl Reflections {
    /// Transforms row vectors of the tridiagonal matrix to those of the original matrix.
    pub(crate) fn apply(&self, mut rows: ArrayViewMut2<'_, f64>) {
        for (k, &factor) in self.factors.iter().enumerate().rev().filter(|(_, f)| **f != 0.0) {
            let v = self.vectors.slice(s![k, k + 1..]);
            for mut row in rows.rows_mut() {
                let mut part = row.slice_mut(s![k + 1..]);
                let scale = factor * part.dot(&v);
                part.scaled_add(-scale, &v);
            }
        }
    }
}

/// Reduces a symmetric matrix, given by its lower triangle, to tridiagonal form. Returns the
/// diagonal `(n)`, the off-diagonal `(n)` with a zero at the end, and the reflections.
pub(crate) fn tridiagonalise(mut a: Array2<f64>) -> (Vec<f64>, Vec<f64>, Reflections) {
    let n = a.nrows();
    for r in 0..n {
        for c in 0..r {
            a[(c, r)] = a[(r, c)];
        }
    }
    let (mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n]);
    let mut factors = vec![0.0; n];
    // The pending update of the rows below is v wᵀ + w vᵀ.
    let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
    for k in 0..n {
        let (mut first, mut rest) = a.view_mut().split_at(Axis(0), k + 1);
        let mut row = first.row_mut(k);
        for j in k..n {
            row[j] -= v[k] * w[j] + w[k] * v[j];
        }
        diagonal[k] = row[k];
        if k + 1 == n {
            break;
        }
        let mut next: Vec<f64> = row.to_vec();
        let (at, factor) = reflection(&mut next[k + 1..]);
        (beside[k], factors[k]) = (at, factor);
        let step = |i: usize, mut row: ndarray::ArrayViewMut1<'_, f64>| {
            let mut row = row.slice_mut(s![k + 1..]);
            row.scaled_add(-v[i], &ndarray::aview1(&w[k + 1..]));
            row.scaled_add(-w[i], &ndarray::aview1(&v[k + 1..]));
            factor * row.dot(&ndarray::aview1(&next[k + 1..]))
        };
        let mut p = vec![0.0; n];
        let rows = rest.axis_iter_mut(Axis(0));
        if n - k >= PARALLEL_FROM {
            let work = rows.into_par_iter().zip(&mut p[k + 1..]).enumerate();
            work.with_min_len(32).for_each(|(i, (row, p))| *p = step(k + 1 + i, row));
        } else {
            for (i, (row, p)) in rows.zip(&mut p[k + 1..]).enumerate() {
                *p = step(k + 1 + i, row);
            }
        }
        let pv: f64 = (k + 1..n).map(|i| p[i] * next[i]).sum();
        (k + 1..n).for_each(|i| p[i] -= 0.5 * factor * pv * next[i]);
        (k + 1..n).for_each(|j| row[j] = next[j]);
        (v, w) = (next, p);
    }
    (diagonal, beside, Reflections { vectors: a, factors })
}

/// Replaces `x` by the vector `v` of the reflection that maps `x` to `(at, 0, 0, ...)`. Returns
/// `at` and the factor of `v vᵀ`.
fn reflection(x: &mut [f64]) -> (f64, f64) {
    let scale = x.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let tail_is_zero = x[1..].iter().all(|&v| v == 0.0);
    if tail_is_zero {
        return (std::mem::replace(&mut x[0], 0.0), 0.0);
    }
    // Scaling avoids overflow and underflow of the squares.
    x.iter_mut().for_each(|v| *v /= scale);
    let length = x.iter().map(|v| v * v).sum::<f64>().sqrt();
    let at = -length.copysign(x[0]);
    x[0] -= at;
    (at * scale, -1.0 / (at * x[0]))
}
