use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::block::product;
use crate::{Error, Result};

/// Triangles of at most this many rows use plain loops.
const SMALL: usize = 64;
/// Triangles of a symmetric product of at most this many rows are computed as squares.
const SQUARE: usize = 96;
/// Number of columns that one task multiplies by a small triangle.
const STRIP: usize = 256;

/// Computes the Cholesky factor `L` of a positive definite matrix `A = L Lᵀ`, `(n, n)`, in place of
/// the lower triangle of `A`, with `n³ / 3` multiplications.
///
/// # Errors
/// A matrix that is not square or not positive definite (or contains NaN).
pub fn cholesky(matrix: &mut Array2<f64>) -> Result<()> {
    check_square("Cholesky factorisation", matrix)?;
    factor(matrix.view_mut(), 0)
}

/// Inverts a lower triangular matrix `(n, n)` in place, with `n³ / 3` multiplications.
///
/// # Errors
/// A matrix that is not square, or has a zero or non-finite diagonal element.
pub fn invert_lower(matrix: &mut Array2<f64>) -> Result<()> {
    check_square("the inverse of a triangle", matrix)?;
    let diagonal = matrix.diag();
    if let Some(row) = diagonal.iter().position(|v| *v == 0.0 || !v.is_finite()) {
        return Err(Error::Singular { row });
    }
    invert(matrix.view_mut());
    Ok(())
}

/// Computes the lower triangle of `Lᵀ L` of a lower triangular matrix `L`, `(n, n)`, in place, with
/// `n³ / 3` multiplications.
///
/// # Errors
/// A matrix that is not square.
pub fn gram_of_lower(matrix: &mut Array2<f64>) -> Result<()> {
    check_square("the Gram matrix of a triangle", matrix)?;
    gram(matrix.view_mut());
    Ok(())
}

/// Adds the lower triangle of `factor · V Vᵀ` to that of `matrix`; the shapes are `(n, dim)` and
/// `(n, n)`.
///
/// # Errors
/// A matrix that is not square, or `vectors` with another number of rows.
pub fn add_gram(matrix: &mut Array2<f64>, factor: f64, vectors: ArrayView2<'_, f64>) -> Result<()> {
    check_square("the sum with a Gram matrix", matrix)?;
    if vectors.nrows() != matrix.nrows() {
        return Err(Error::Shape {
            operation: "the sum with a Gram matrix",
            expected: format!("vectors of {} rows", matrix.nrows()),
            rows: vectors.nrows(),
            columns: vectors.ncols(),
        });
    }
    add_product(matrix.view_mut(), factor, vectors);
    Ok(())
}

fn check_square(operation: &'static str, matrix: &Array2<f64>) -> Result<()> {
    let (rows, columns) = matrix.dim();
    if rows == columns && matrix.is_standard_layout() {
        return Ok(());
    }
    Err(Error::Shape { operation, expected: "a square matrix".into(), rows, columns })
}

/// The blocks of a square matrix: upper left, lower left, lower right.
struct Quarters<'a> {
    above: ArrayViewMut2<'a, f64>,
    below: ArrayViewMut2<'a, f64>,
    last: ArrayViewMut2<'a, f64>,
}

/// Half of `n`, rounded to a multiple of [`SMALL`].
fn half(n: usize) -> usize {
    (n / 2).next_multiple_of(SMALL)
}

fn quarters(matrix: ArrayViewMut2<'_, f64>) -> Quarters<'_> {
    let at = half(matrix.nrows());
    let (first, second) = matrix.split_at(Axis(0), at);
    let (above, _) = first.split_at(Axis(1), at);
    let (below, last) = second.split_at(Axis(1), at);
    Quarters { above, below, last }
}

fn view_quarters(matrix: ArrayView2<'_, f64>) -> [ArrayView2<'_, f64>; 3] {
    let at = half(matrix.nrows());
    let (first, second) = matrix.split_at(Axis(0), at);
    let (above, _) = first.split_at(Axis(1), at);
    let (below, last) = second.split_at(Axis(1), at);
    [above, below, last]
}

/// Replaces `A` by `L`; `row` is the position of the first row in the whole matrix.
fn factor(matrix: ArrayViewMut2<'_, f64>, row: usize) -> Result<()> {
    let n = matrix.nrows();
    if n <= SMALL {
        return factor_small(matrix, row);
    }
    let Quarters { mut above, mut below, mut last } = quarters(matrix);
    let at = above.nrows();
    factor(above.view_mut(), row)?;
    // L21 = A21 L11⁻ᵀ, A22 -= L21 L21ᵀ.
    solve(above.view(), below.view_mut().reversed_axes());
    add_product(last.view_mut(), -1.0, below.view());
    factor(last, row + at)
}

fn factor_small(mut matrix: ArrayViewMut2<'_, f64>, first: usize) -> Result<()> {
    let n = matrix.nrows();
    for r in 0..n {
        let (done, mut rest) = matrix.view_mut().split_at(Axis(0), r);
        let mut row = rest.row_mut(0);
        for c in 0..r {
            let other = done.row(c);
            let sum: f64 = (0..c).map(|i| row[i] * other[i]).sum();
            row[c] = (row[c] - sum) / other[c];
        }
        let pivot = row[r] - (0..r).map(|i| row[i] * row[i]).sum::<f64>();
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(Error::NotPositiveDefinite { row: first + r });
        }
        row[r] = pivot.sqrt();
    }
    Ok(())
}

/// Copies a triangle of at most [`SMALL`] rows, with zeros above its diagonal.
fn small_copy(lower: ArrayView2<'_, f64>) -> Array2<f64> {
    Array2::from_shape_fn(lower.dim(), |(r, c)| if c <= r { lower[(r, c)] } else { 0.0 })
}

fn invert_small(mut lower: ArrayViewMut2<'_, f64>) {
    for r in 0..lower.nrows() {
        let (done, mut rest) = lower.view_mut().split_at(Axis(0), r);
        let mut row = rest.row_mut(0);
        let scale = 1.0 / row[r];
        // Row r of the inverse is -L_rr⁻¹ times row r of L times the inverse above it.
        for c in 0..r {
            let sum: f64 = (c..r).map(|i| row[i] * done[(i, c)]).sum();
            row[c] = -scale * sum;
        }
        row[r] = scale;
    }
}

/// Replaces `B` by `small B`, in strips that fit the cache.
fn multiply_small(small: ArrayView2<'_, f64>, mut b: ArrayViewMut2<'_, f64>) {
    let transposed = b.strides()[0].abs() < b.strides()[1].abs();
    if transposed {
        b = b.reversed_axes();
    }
    let strips = b.axis_chunks_iter_mut(Axis(if transposed { 0 } else { 1 }), STRIP);
    strips.into_par_iter().for_each(|strip| {
        let before = strip.to_owned();
        match transposed {
            true => product(strip, 0.0, 1.0, before.view(), small.t()),
            false => product(strip, 0.0, 1.0, small, before.view()),
        }
    });
}

/// Replaces `B` by `L⁻¹ B`.
fn solve(lower: ArrayView2<'_, f64>, b: ArrayViewMut2<'_, f64>) {
    if lower.nrows() <= SMALL {
        let mut inverse = small_copy(lower);
        invert_small(inverse.view_mut());
        return multiply_small(inverse.view(), b);
    }
    let [above, below, last] = view_quarters(lower);
    let (mut first, mut second) = b.split_at(Axis(0), above.nrows());
    solve(above, first.view_mut());
    product(second.view_mut(), 1.0, -1.0, below, first.view());
    solve(last, second);
}

/// Replaces `B` by `L B`.
fn multiply(lower: ArrayView2<'_, f64>, b: ArrayViewMut2<'_, f64>) {
    if lower.nrows() <= SMALL {
        return multiply_small(small_copy(lower).view(), b);
    }
    let [above, below, last] = view_quarters(lower);
    let (first, mut second) = b.split_at(Axis(0), above.nrows());
    multiply(last, second.view_mut());
    product(second, 1.0, 1.0, below, first.view());
    multiply(above, first);
}

/// Replaces `B` by `Lᵀ B`.
fn multiply_transposed(lower: ArrayView2<'_, f64>, b: ArrayViewMut2<'_, f64>) {
    if lower.nrows() <= SMALL {
        return multiply_small(small_copy(lower).t(), b);
    }
    let [above, below, last] = view_quarters(lower);
    let (mut first, second) = b.split_at(Axis(0), above.nrows());
    multiply_transposed(above, first.view_mut());
    product(first, 1.0, 1.0, below.t(), second.view());
    multiply_transposed(last, second);
}

/// Replaces `L` by `L⁻¹`, whose lower left block is `-L22⁻¹ L21 L11⁻¹`.
fn invert(lower: ArrayViewMut2<'_, f64>) {
    if lower.nrows() <= SMALL {
        return invert_small(lower);
    }
    let Quarters { mut above, mut below, mut last } = quarters(lower);
    rayon::join(|| invert(above.view_mut()), || invert(last.view_mut()));
    multiply(last.view(), below.view_mut());
    multiply_transposed(above.view(), below.view_mut().reversed_axes());
    below.mapv_inplace(|v| -v);
}

/// Replaces `L` by the lower triangle of `Lᵀ L`.
fn gram(lower: ArrayViewMut2<'_, f64>) {
    if lower.nrows() <= SMALL {
        let copy = small_copy(lower.view());
        return assign_lower(lower, copy.t().dot(&copy).view());
    }
    let Quarters { mut above, mut below, last } = quarters(lower);
    gram(above.view_mut());
    add_product(above, 1.0, below.t());
    multiply_transposed(last.view(), below.view_mut());
    gram(last);
}

fn assign_lower(mut lower: ArrayViewMut2<'_, f64>, values: ArrayView2<'_, f64>) {
    for r in 0..lower.nrows() {
        for c in 0..=r {
            lower[(r, c)] = values[(r, c)];
        }
    }
}

/// Adds the lower triangle of `factor · V Vᵀ`.
fn add_product(mut lower: ArrayViewMut2<'_, f64>, factor: f64, vectors: ArrayView2<'_, f64>) {
    if lower.nrows() <= SQUARE {
        let mut square = lower.to_owned();
        product(square.view_mut(), 1.0, factor, vectors, vectors.t());
        return assign_lower(lower.view_mut(), square.view());
    }
    let Quarters { above, below, last } = quarters(lower);
    let (first, second) = vectors.split_at(Axis(0), above.nrows());
    product(below, 1.0, factor, second, first.t());
    rayon::join(|| add_product(above, factor, first), || add_product(last, factor, second));
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    const SIZES: [usize; 8] = [1, 2, 63, 64, 65, 129, 200, 517];

    /// A positive definite matrix with NaN above the diagonal.
    fn matrix(n: usize) -> Array2<f64> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(n as u64);
        let v = Array2::from_shape_fn((n, n + 3), |_| rng.random_range(-1.0..1.0));
        let mut a = Array2::from_shape_fn((n, n), |(r, c)| if c > r { f64::NAN } else { 0.0 });
        a.diag_mut().fill(0.5);
        add_gram(&mut a, 2.0, v.view()).unwrap();
        for r in 0..n {
            for c in 0..=r {
                let sum: f64 = (0..n + 3).map(|i| v[(r, i)] * v[(c, i)]).sum();
                let expected = 2.0 * sum + if r == c { 0.5 } else { 0.0 };
                assert!((a[(r, c)] - expected).abs() < 1e-9 * n as f64);
            }
        }
        a
    }

    fn symmetric(a: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn(a.dim(), |(r, c)| a[(r.max(c), r.min(c))])
    }

    fn assert_unit(product: &Array2<f64>, tolerance: f64) {
        for ((r, c), &v) in product.indexed_iter() {
            let expected = if r == c { 1.0 } else { 0.0 };
            assert!((v - expected).abs() < tolerance, "({r}, {c}): {v}");
        }
    }

    #[test]
    fn factors_and_inverses_match_the_matrix() {
        for n in SIZES {
            let a = matrix(n);
            let mut work = a.clone();
            cholesky(&mut work).unwrap();
            let l = small_copy(work.view());
            let difference = l.dot(&l.t()) - symmetric(&a);
            assert!(difference.iter().all(|d| d.abs() < 1e-11 * n as f64), "{n}");
            invert_lower(&mut work).unwrap();
            assert_unit(&small_copy(work.view()).dot(&l), 1e-9);
            gram_of_lower(&mut work).unwrap();
            assert_unit(&symmetric(&work).dot(&symmetric(&a)), 1e-7);
            for r in 0..n {
                assert!((r + 1..n).all(|c| work[(r, c)].is_nan()), "above the diagonal of {n}");
            }
        }
    }

    #[test]
    fn thread_count_does_not_change_results() {
        let inverse = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut work = matrix(517);
                cholesky(&mut work).unwrap();
                invert_lower(&mut work).unwrap();
                gram_of_lower(&mut work).unwrap();
                small_copy(work.view())
            })
        };
        assert_eq!(inverse(1), inverse(3));
    }

    #[test]
    fn rejects_invalid_arguments() {
        let mut a = matrix(200);
        a[(130, 130)] = -1.0;
        assert_eq!(cholesky(&mut a), Err(Error::NotPositiveDefinite { row: 130 }));
        let mut a = matrix(200);
        a[(150, 7)] = f64::NAN;
        assert_eq!(cholesky(&mut a), Err(Error::NotPositiveDefinite { row: 150 }));
        let mut a = matrix(3);
        a[(1, 1)] = 0.0;
        assert_eq!(invert_lower(&mut a), Err(Error::Singular { row: 1 }));
        assert!(matches!(gram_of_lower(&mut Array2::zeros((2, 3))), Err(Error::Shape { .. })));
        let short = Array2::zeros((2, 3));
        assert!(matches!(add_gram(&mut a, 1.0, short.view()), Err(Error::Shape { .. })));
        let mut none = Array2::zeros((0, 0));
        assert_eq!(cholesky(&mut none), Ok(()));
    }
}
