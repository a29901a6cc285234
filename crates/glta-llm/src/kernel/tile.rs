//! The register tile that every matrix product here is made of.

use super::PANEL;
use crate::simd::{Simd, dispatch};

/// Left operand: element `(row, k)` is at `ptr + row * row_stride + k * k_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) ptr: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) k_stride: usize,
}

/// `C[r][c] += scale[c] * Σ_k A[r][k] B[k][c]` for the 32 columns of a panel
/// and any number of rows; `B` is `(k_len, 32)`, contiguous.
///
/// The sum over `k` is one chain of fused multiply-adds per element, so a
/// row's result does not depend on which rows are computed beside it. Without
/// a scale the chain starts from `C`, so cutting `k` into parts changes nothing.
///
/// # Safety
/// `a` valid for `rows x k_len`, `b` for `k_len * 32`, `c` for 32 columns of
/// `rows` rows of stride `ldc`, `scale` null (none) or valid for 32.
#[inline(always)]
pub(crate) unsafe fn panel_product<S: Simd>(
    a: Left,
    rows: usize,
    b: *const f32,
    k_len: usize,
    c: *mut f32,
    ldc: usize,
    scale: *const f32,
) {
    if rows == 0 || k_len == 0 {
        return;
    }
    // Tiles of nearly equal height: 13 rows are 7 + 6, not 12 + 1.
    let tiles = rows.div_ceil(S::ROWS);
    let mut start = 0;
    for t in 0..tiles {
        let end = (t + 1) * rows / tiles;
        let at = Left { ptr: a.ptr.add(start * a.row_stride), ..a };
        let c = c.add(start * ldc);
        macro_rules! by_height {
            ($($r:literal)*) => {
                match end - start {
                    $($r if $r <= S::ROWS => tile::<S, $r>(at, b, k_len, c, ldc, scale),)*
                    _ => {}
                }
            };
        }
        by_height!(1 2 3 4 5 6 7 8 9 10 11 12);
        start = end;
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const R: usize>(
    a: Left,
    b: *const f32,
    k_len: usize,
    c: *mut f32,
    ldc: usize,
    scale: *const f32,
) {
    let step = 2 * S::LANES;
    let mut col = 0;
    while col < PANEL {
        let mut acc = [[S::splat(0.0); 2]; R];
        if scale.is_null() {
            for (r, acc) in acc.iter_mut().enumerate() {
                let cp = c.add(r * ldc + col);
                *acc = [S::load(cp), S::load(cp.add(S::LANES))];
            }
        }
        let mut bp = b.add(col);
        let mut ap = a.ptr;
        for _ in 0..k_len {
            let b0 = S::load(bp);
            let b1 = S::load(bp.add(S::LANES));
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = S::splat(*ap.add(r * a.row_stride));
                acc[0] = S::fma(x, b0, acc[0]);
                acc[1] = S::fma(x, b1, acc[1]);
            }
            bp = bp.add(PANEL);
            ap = ap.add(a.k_stride);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (v, acc) in acc.into_iter().enumerate() {
                let at = col + v * S::LANES;
                let cp = c.add(r * ldc + at);
                let sum = if scale.is_null() {
                    acc
                } else {
                    S::fma(acc, S::load(scale.add(at)), S::load(cp))
                };
                S::store(cp, sum);
            }
        }
        col += step;
    }
}

dispatch! {
    /// [`panel_product`] for the instruction set `level`.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn panel_product_at(
        a: Left, rows: usize, b: *const f32, k_len: usize, c: *mut f32, ldc: usize, scale: *const f32,
    ) = panel_product
}
