use glta_core::{Progress, Silent};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::block::{product, product_with};
use crate::work::{REPORT_EVERY, Step, Work};
use crate::{Error, Result};

/// Maximum number of rows of a triangle that is computed by plain loops.
const SMALL: usize = 64;
/// Maximum number of rows of a symmetric product that is computed as a whole square, with both
/// triangles.
const SQUARE: usize = 96;
/// Number of columns that one task multiplies by a small triangle.
const STRIP: usize = 256;

/// Computes the Cholesky factor `L` of a positive definite matrix `A = L Lᵀ`, `(n, n)`, in place of
/// the lower triangle of `A`, with `n³ / 3` floating-point operations.
///
/// ```
/// use glta_linalg::cholesky;
/// use ndarray::array;
///
/// let mut matrix = array![[4.0, 0.0], [2.0, 5.0]];
/// cholesky(&mut matrix)?;
/// assert_eq!(matrix, array![[2.0, 0.0], [1.0, 2.0]]);
/// # Ok::<(), glta_linalg::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the matrix is not square or not positive definite (or contains NaN).
pub fn cholesky(matrix: &mut Array2<f64>) -> Result<()> {
    check_square("Cholesky factorisation", matrix)?;
    factor(matrix.view_mut(), 0, &mut Work::silent())
}

/// Inverts a lower triangular matrix `(n, n)` in place, with `n³ / 3` floating-point operations.
///
/// # Errors
/// Returns an error if the matrix is not square or has a diagonal element that is zero or not
/// finite.
pub fn invert_lower(matrix: &mut Array2<f64>) -> Result<()> {
    check_square("the inverse of a triangle", matrix)?;
    invert_lower_with(matrix, &mut Work::silent())
}

fn invert_lower_with(matrix: &mut Array2<f64>, work: &mut Work<'_>) -> Result<()> {
    let diagonal = matrix.diag();
    if let Some(row) = diagonal.iter().position(|v| *v == 0.0 || !v.is_finite()) {
        return Err(Error::Singular { row });
    }
    invert(matrix.view_mut(), work)
}

/// Computes the lower triangle of `Lᵀ L` of a lower triangular matrix `L`, `(n, n)`, in place, with
/// `n³ / 3` floating-point operations.
///
/// # Errors
/// Returns an error if the matrix is not square.
pub fn gram_of_lower(matrix: &mut Array2<f64>) -> Result<()> {
    check_square("the Gram matrix of a triangle", matrix)?;
    gram(matrix.view_mut(), &mut Work::silent())
}

/// Replaces the lower triangle of a positive definite matrix, `(n, n)`, by the lower triangle of
/// the inverse. The function calls [`cholesky`], [`invert_lower`] and [`gram_of_lower`] and reports
/// the progress.
///
/// ```
/// use glta_core::Silent;
/// use glta_linalg::invert_with;
/// use ndarray::array;
///
/// let mut matrix = array![[4.0, 0.0], [2.0, 5.0]];
/// invert_with(&mut matrix, &mut Silent)?;
/// assert_eq!(matrix, array![[0.3125, 0.0], [-0.125, 0.25]]);
/// # Ok::<(), glta_linalg::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the matrix is not square or not positive definite, and [`Error::Cancelled`]
/// if `progress` cancels the operation.
pub fn invert_with(matrix: &mut Array2<f64>, progress: &mut dyn Progress<Step>) -> Result<()> {
    check_square("the inverse of a positive definite matrix", matrix)?;
    let work = &mut Work::new(progress, (matrix.nrows() as f64).powi(3) / 2.0);
    factor(matrix.view_mut(), 0, work)?;
    invert_lower_with(matrix, work)?;
    gram(matrix.view_mut(), work)
}

/// Adds the lower triangle of `factor · V Vᵀ` to the lower triangle of `matrix: (n, n)`, for `V:
/// (n, dim)`.
///
/// # Errors
/// Returns an error if the matrix is not square or `vectors` has a different number of rows.
pub fn add_gram(matrix: &mut Array2<f64>, factor: f64, vectors: ArrayView2<'_, f64>) -> Result<()> {
    add_gram_with(matrix, factor, vectors, &mut Silent)
}

/// Computes [`add_gram`] with progress reports.
///
/// # Errors
/// Returns the errors of [`add_gram`], and [`Error::Cancelled`] if `progress` cancels the
/// operation.
pub fn add_gram_with(
    matrix: &mut Array2<f64>,
    factor: f64,
    vectors: ArrayView2<'_, f64>,
    progress: &mut dyn Progress<Step>,
) -> Result<()> {
    check_square("the sum with a Gram matrix", matrix)?;
    let (n, dim) = vectors.dim();
    if n != matrix.nrows() {
        return Err(Error::Shape {
            operation: "the sum with a Gram matrix",
            expected: format!("vectors of {} rows", matrix.nrows()),
            rows: n,
            columns: dim,
        });
    }
    let work = &mut Work::new(progress, 0.5 * (n as f64).powi(2) * dim as f64);
    add_product(matrix.view_mut(), factor, vectors, work)
}

fn check_square(operation: &'static str, matrix: &Array2<f64>) -> Result<()> {
    let (rows, columns) = matrix.dim();
    if rows == columns && matrix.is_standard_layout() {
        return Ok(());
    }
    Err(Error::Shape { operation, expected: "a square matrix".into(), rows, columns })
}

/// The blocks of a lower triangle: upper left, lower left, lower right.
struct Quarters<'a> {
    above: ArrayViewMut2<'a, f64>,
    below: ArrayViewMut2<'a, f64>,
    last: ArrayViewMut2<'a, f64>,
}

/// Returns half of `n`, rounded up to a multiple of [`SMALL`].
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

/// Replaces a diagonal block `A` by its Cholesky factor `L`. `row` is the position of the block's
/// first row in the whole matrix.
fn factor(matrix: ArrayViewMut2<'_, f64>, row: usize, work: &mut Work<'_>) -> Result<()> {
    let n = matrix.nrows();
    if n <= SMALL {
        return factor_small(matrix, row);
    }
    let Quarters { mut above, mut below, mut last } = quarters(matrix);
    let at = above.nrows();
    factor(above.view_mut(), row, work)?;
    // L21 = A21 L11⁻ᵀ, then A22 -= L21 L21ᵀ.
    solve(above.view(), below.view_mut().reversed_axes(), work)?;
    add_product(last.view_mut(), -1.0, below.view(), work)?;
    factor(last, row + at, work)
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

/// Copies a triangle of at most [`SMALL`] rows, with zeros above the diagonal.
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

/// Replaces `B` by the product `small · B`, in strips that fit the cache.
fn multiply_small(
    small: ArrayView2<'_, f64>,
    mut b: ArrayViewMut2<'_, f64>,
    work: &mut Work<'_>,
) -> Result<()> {
    let cost = (small.nrows() * b.len()) as f64;
    let transposed = b.strides()[0].abs() < b.strides()[1].abs();
    if transposed {
        b = b.reversed_axes();
    }
    let strips = b.axis_chunks_iter_mut(Axis(if transposed { 0 } else { 1 }), STRIP);
    strips.into_par_iter().for_each(|strip| {
        let before = strip.to_owned();
        if transposed {
            product(strip, 0.0, 1.0, before.view(), small.t())
        } else {
            product(strip, 0.0, 1.0, small, before.view())
        }
    });
    // Half of the small triangle is zero.
    work.add(0.5 * cost)
}

/// Replaces `B` by `L⁻¹ B`.
fn solve(lower: ArrayView2<'_, f64>, b: ArrayViewMut2<'_, f64>, work: &mut Work<'_>) -> Result<()> {
    if lower.nrows() <= SMALL {
        let mut inverse = small_copy(lower);
        invert_small(inverse.view_mut());
        return multiply_small(inverse.view(), b, work);
    }
    let [above, below, last] = view_quarters(lower);
    let (mut first, mut second) = b.split_at(Axis(0), above.nrows());
    solve(above, first.view_mut(), work)?;
    product_with(second.view_mut(), 1.0, -1.0, below, first.view(), work)?;
    solve(last, second, work)
}

/// Replaces `B` by the product `L B`.
fn multiply(
    lower: ArrayView2<'_, f64>,
    b: ArrayViewMut2<'_, f64>,
    work: &mut Work<'_>,
) -> Result<()> {
    if lower.nrows() <= SMALL {
        return multiply_small(small_copy(lower).view(), b, work);
    }
    let [above, below, last] = view_quarters(lower);
    let (first, mut second) = b.split_at(Axis(0), above.nrows());
    multiply(last, second.view_mut(), work)?;
    product_with(second, 1.0, 1.0, below, first.view(), work)?;
    multiply(above, first, work)
}

/// Replaces `B` by the product `Lᵀ B`.
fn multiply_transposed(
    lower: ArrayView2<'_, f64>,
    b: ArrayViewMut2<'_, f64>,
    work: &mut Work<'_>,
) -> Result<()> {
    if lower.nrows() <= SMALL {
        return multiply_small(small_copy(lower).t(), b, work);
    }
    let [above, below, last] = view_quarters(lower);
    let (mut first, second) = b.split_at(Axis(0), above.nrows());
    multiply_transposed(above, first.view_mut(), work)?;
    product_with(first, 1.0, 1.0, below.t(), second.view(), work)?;
    multiply_transposed(last, second, work)
}

/// Replaces `L` by `L⁻¹`, whose lower left block is `-L22⁻¹ L21 L11⁻¹`.
fn invert(lower: ArrayViewMut2<'_, f64>, work: &mut Work<'_>) -> Result<()> {
    if lower.nrows() <= SMALL {
        invert_small(lower);
        return Ok(());
    }
    let cost = (lower.nrows() as f64).powi(3) / 24.0;
    let Quarters { mut above, mut below, mut last } = quarters(lower);
    both(cost, work, |work| invert(above.view_mut(), work), |work| invert(last.view_mut(), work))?;
    multiply(last.view(), below.view_mut(), work)?;
    multiply_transposed(above.view(), below.view_mut().reversed_axes(), work)?;
    below.mapv_inplace(|v| -v);
    Ok(())
}

/// Runs two parts of `cost` multiplications each in parallel. Parts that are long enough to report
/// progress run one after the other.
fn both(
    cost: f64,
    work: &mut Work<'_>,
    first: impl FnOnce(&mut Work<'_>) -> Result<()> + Send,
    second: impl FnOnce(&mut Work<'_>) -> Result<()> + Send,
) -> Result<()> {
    if cost > REPORT_EVERY {
        first(work)?;
        return second(work);
    }
    let (first, second) =
        rayon::join(|| first(&mut Work::silent()), || second(&mut Work::silent()));
    first.and(second)?;
    work.add(cost)
}

/// Replaces `L` by the lower triangle of `Lᵀ L`.
fn gram(lower: ArrayViewMut2<'_, f64>, work: &mut Work<'_>) -> Result<()> {
    if lower.nrows() <= SMALL {
        let copy = small_copy(lower.view());
        assign_lower(lower, copy.t().dot(&copy).view());
        return Ok(());
    }
    let Quarters { mut above, mut below, last } = quarters(lower);
    gram(above.view_mut(), work)?;
    add_product(above, 1.0, below.t(), work)?;
    multiply_transposed(last.view(), below.view_mut(), work)?;
    gram(last, work)
}

fn assign_lower(mut lower: ArrayViewMut2<'_, f64>, values: ArrayView2<'_, f64>) {
    for r in 0..lower.nrows() {
        for c in 0..=r {
            lower[(r, c)] = values[(r, c)];
        }
    }
}

/// Adds the lower triangle of `factor · V Vᵀ` to `lower`.
fn add_product(
    mut lower: ArrayViewMut2<'_, f64>,
    factor: f64,
    vectors: ArrayView2<'_, f64>,
    work: &mut Work<'_>,
) -> Result<()> {
    let (n, dim) = vectors.dim();
    if n <= SQUARE {
        let mut square = lower.to_owned();
        product(square.view_mut(), 1.0, factor, vectors, vectors.t());
        assign_lower(lower.view_mut(), square.view());
        return work.add((n * n * dim) as f64 / 2.0);
    }
    let cost = (n * n) as f64 * dim as f64 / 4.0;
    let Quarters { above, below, last } = quarters(lower);
    let (first, second) = vectors.split_at(Axis(0), above.nrows());
    product_with(below, 1.0, factor, second, first.t(), work)?;
    both(
        cost,
        work,
        |work| add_product(above, factor, first, work),
        |work| add_product(last, factor, second, work),
    )
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use rand::{Rng, SeedableRng};

    use super::*;

    const SIZES: [usize; 8] = [1, 2, 63, 64, 65, 129, 200, 517];

    /// Returns a positive definite matrix with NaN above the diagonal.
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

    /// A long operation reports progress several times, and can be cancelled.
    #[test]
    fn long_work_reports_and_can_be_cancelled() {
        let n = 3000;
        let mut start = Array2::<f64>::from_diag_elem(n, 4.0);
        start.row_mut(n - 1).fill(0.01);
        start[(n - 1, n - 1)] = 4.0;
        let mut work = start.clone();
        let mut steps: Vec<f64> = Vec::new();
        let mut keep = |step: &Step| {
            steps.push(step.done);
            ControlFlow::Continue(())
        };
        invert_with(&mut work, &mut keep).unwrap();
        assert!((work[(0, 0)] - 0.25).abs() < 1e-3 && work[(n - 1, 0)] < 0.0);
        assert!(steps.is_sorted() && steps.len() >= 6, "{steps:?}");
        let last = steps[steps.len() - 1];
        assert!((0.8..=1.0).contains(&last), "{steps:?}");

        let mut calls = 0;
        let mut stop = |_: &Step| {
            calls += 1;
            if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let cancelled = Err(Error::Cancelled(glta_core::Cancelled));
        assert_eq!(invert_with(&mut start, &mut stop), cancelled);
        assert_eq!(calls, 3);
        let vectors = Array2::zeros((n, 600));
        calls = 2;
        let mut stop = |_: &Step| {
            calls += 1;
            if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(add_gram_with(&mut start, 1.0, vectors.view(), &mut stop), cancelled);
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
