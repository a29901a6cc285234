use gemm_common::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use crate::Result;
use crate::work::{REPORT_EVERY, Work};

/// Number of multiplications below which a product runs on one thread.
const PARALLEL_FROM: usize = 1 << 22;

/// Computes [`product`] in parts, with a progress report after each part.
pub(crate) fn product_with(
    c: ArrayViewMut2<'_, f64>,
    keep: f64,
    factor: f64,
    a: ArrayView2<'_, f64>,
    b: ArrayView2<'_, f64>,
    work: &mut Work<'_>,
) -> Result<()> {
    let ((m, n), k) = (c.dim(), a.ncols());
    let cost = m as f64 * n as f64 * k as f64;
    if cost <= 2.0 * REPORT_EVERY || m.max(n) < 2 {
        product(c, keep, factor, a, b);
        return work.add(cost);
    }
    // The division depends only on the sizes, so the result does too.
    if m >= n {
        let at = (m / 2).next_multiple_of(PART).min(m - 1);
        let ((c0, c1), (a0, a1)) = (c.split_at(Axis(0), at), a.split_at(Axis(0), at));
        product_with(c0, keep, factor, a0, b, work)?;
        product_with(c1, keep, factor, a1, b, work)
    } else {
        let at = (n / 2).next_multiple_of(PART).min(n - 1);
        let ((c0, c1), (b0, b1)) = (c.split_at(Axis(1), at), b.split_at(Axis(1), at));
        product_with(c0, keep, factor, a, b0, work)?;
        product_with(c1, keep, factor, a, b1, work)
    }
}

/// Unit of the size of a part: its numbers of rows and columns are multiples of 64.
const PART: usize = 64;

/// Computes `c = keep · c + factor · a b` on rayon's current pool.
pub(crate) fn product(
    mut c: ArrayViewMut2<'_, f64>,
    keep: f64,
    factor: f64,
    a: ArrayView2<'_, f64>,
    b: ArrayView2<'_, f64>,
) {
    let ((m, n), k) = (c.dim(), a.ncols());
    assert!(a.nrows() == m && b.dim() == (k, n), "{:?} x {:?} into {m} x {n}", a.dim(), b.dim());
    let parallelism = match m * n * k {
        0..PARALLEL_FROM => Parallelism::None,
        _ => Parallelism::Rayon(0),
    };
    let strides = |s: &[isize]| (s[1], s[0]);
    let (c_strides, a_strides, b_strides) =
        (strides(c.strides()), strides(a.strides()), strides(b.strides()));
    // SAFETY: pointers, shapes and strides are those of live views whose shapes agree. `c` is
    // borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm_f64::gemm::f64::get_gemm_fn()(
            m,
            n,
            k,
            c.as_mut_ptr(),
            c_strides.0,
            c_strides.1,
            keep != 0.0,
            a.as_ptr(),
            a_strides.0,
            a_strides.1,
            b.as_ptr(),
            b_strides.0,
            b_strides.1,
            keep,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}
