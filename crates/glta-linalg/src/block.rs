use gemm_common::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Products with fewer multiplications run on one thread.
const PARALLEL_FROM: usize = 1 << 22;

/// `c = keep · c + factor · a b`, on rayon's current pool.
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
