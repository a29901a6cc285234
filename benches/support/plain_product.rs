//! The limit of products: the `gemm` crate on all threads.

/// `c = a bᵀ` in f32: `a: (m, k)`, `b: (n, k)`, `c: (m, n)`, all row-major.
pub(crate) fn plain_product(a: &[f32], b: &[f32], c: &mut [f32], k: usize) {
    let (m, n) = (a.len() / k, b.len() / k);
    assert!(a.len() == m * k && b.len() == n * k && c.len() == m * n);
    // SAFETY: the shapes were checked, and the strides match them.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
