//! The register tile of every matrix product in this crate.

use crate::panel::PANEL;
use crate::simd::{Simd, SimdLevel, dispatch, dispatch_bf16};

/// The left operand of a product. Element `(row, k)` is at `ptr + row * row_stride + k * k_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) ptr: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) k_stride: usize,
}

/// Pointers to the 32 columns of a panel's sums: the initial values and the destination, each with
/// its row stride.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    /// Initial values; null if the sums start from zero.
    pub(crate) from: *const f32,
    pub(crate) from_stride: usize,
    pub(crate) to: *mut f32,
    pub(crate) to_stride: usize,
}

impl Sums {
    /// Returns the sums from row `row` on.
    pub(crate) unsafe fn row(self, row: usize) -> Self {
        let from =
            if self.from.is_null() { self.from } else { self.from.add(row * self.from_stride) };
        Self { from, to: self.to.add(row * self.to_stride), ..self }
    }
}

/// Returns the maximum number of rows of a tile.
pub(crate) fn tile_rows(level: SimdLevel) -> usize {
    // SAFETY: reads a constant; no instruction of the set is used.
    unsafe { tile_rows_at(level) }
}

#[inline(always)]
unsafe fn tile_rows_generic<S: Simd>() -> usize {
    S::ROWS
}

dispatch! { unsafe fn tile_rows_at() -> usize = tile_rows_generic }

/// Computes `C[r][c] += scale[c] * Σ_k A[r][k] B[k][c]` for the 32 columns of a panel and any
/// number of rows. `B` is `(k_len, 32)`, contiguous.
///
/// The sum over `k` is one chain of fused multiply-adds per element, so a row's result does not
/// depend on the other rows. Without a scale, the chain starts from `C`, so splitting `k` does not
/// change the result.
///
/// # Safety
/// `a` must be valid for `rows x k_len` elements, `b` for `k_len * 32`, and `c` for 32 columns of
/// `rows` rows of stride `ldc`. `scale` must be null (no scale) or valid for 32 elements.
#[inline(always)]
unsafe fn panel_product<S: Simd>(
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
    let tiles = rows.div_ceil(S::ROWS);
    let c = Sums { from: c, from_stride: ldc, to: c, to_stride: ldc };
    let mut start = 0;
    for t in 0..tiles {
        let end = (t + 1) * rows / tiles;
        let at = Left { ptr: a.ptr.add(start * a.row_stride), ..a };
        tile::<S, false, false>(at, end - start, b, k_len, c.row(start), scale);
        start = end;
    }
}

/// Computes [`panel_product`] of one tile with adjacent rows (`row_stride` 1, `k_stride` the number
/// of rows) and a scale.
///
/// # Safety
/// The requirements are those of [`panel_product`]. In addition, `rows` is at most `S::ROWS`, and
/// `scale` is valid for 32 elements.
#[inline(always)]
unsafe fn packed_product<S: Simd>(
    a: Left,
    rows: usize,
    b: *const f32,
    k_len: usize,
    c: Sums,
    scale: *const f32,
) {
    tile::<S, true, false>(a, rows, b, k_len, c, scale);
}

/// Computes [`packed_product`] of `k_len` pairs of bf16.
///
/// # Safety
/// The requirements are those of [`packed_product`].
#[inline(always)]
unsafe fn paired_product<S: Simd>(
    a: Left,
    rows: usize,
    b: *const f32,
    k_len: usize,
    c: Sums,
    scale: *const f32,
) {
    tile::<S, true, true>(a, rows, b, k_len, c, scale);
}

#[inline(always)]
unsafe fn tile<S: Simd, const PACKED: bool, const PAIRS: bool>(
    a: Left,
    rows: usize,
    b: *const f32,
    k_len: usize,
    c: Sums,
    scale: *const f32,
) {
    macro_rules! by_height {
        ($($r:literal)*) => {
            match rows {
                $($r if $r <= S::ROWS => height::<S, PACKED, PAIRS, $r>(a, b, k_len, c, scale),)*
                _ => {}
            }
        };
    }
    by_height!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// Computes the product of `R` rows with the columns of the panel. Few rows use all columns at
/// once, because more independent sums hide the latency of the multiply-adds.
#[inline(always)]
unsafe fn height<S: Simd, const PACKED: bool, const PAIRS: bool, const R: usize>(
    a: Left,
    b: *const f32,
    k_len: usize,
    c: Sums,
    scale: *const f32,
) {
    if 2 * R <= S::ROWS && 4 * S::LANES <= PANEL {
        columns::<S, PACKED, PAIRS, R, 4>(a, b, k_len, c, scale)
    } else {
        columns::<S, PACKED, PAIRS, R, 2>(a, b, k_len, c, scale)
    }
}

#[inline(always)]
unsafe fn columns<
    S: Simd,
    const PACKED: bool,
    const PAIRS: bool,
    const R: usize,
    const V: usize,
>(
    a: Left,
    b: *const f32,
    k_len: usize,
    c: Sums,
    scale: *const f32,
) {
    let (row_stride, k_stride) = if PACKED { (1, R) } else { (a.row_stride, a.k_stride) };
    let mut col = 0;
    while col < PANEL {
        let mut acc = [[S::splat(0.0); V]; R];
        if scale.is_null() {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(c.from.add(r * c.from_stride + col + v * S::LANES));
                }
            }
        }
        let mut bp = b.add(col);
        let mut ap = a.ptr;
        for _ in 0..k_len {
            let mut b = [S::splat(0.0); V];
            for (v, b) in b.iter_mut().enumerate() {
                *b = S::load(bp.add(v * S::LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = S::splat(*ap.add(r * row_stride));
                for (acc, &b) in acc.iter_mut().zip(&b) {
                    *acc = if PAIRS { S::dot_bf16(x, b, *acc) } else { S::fma(x, b, *acc) };
                }
            }
            bp = bp.add(PANEL);
            ap = ap.add(k_stride);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (v, acc) in acc.into_iter().enumerate() {
                let at = col + v * S::LANES;
                let sum = if scale.is_null() {
                    acc
                } else if c.from.is_null() {
                    S::mul(acc, S::load(scale.add(at)))
                } else {
                    let before = S::load(c.from.add(r * c.from_stride + at));
                    S::fma(acc, S::load(scale.add(at)), before)
                };
                S::store(c.to.add(r * c.to_stride + at), sum);
            }
        }
        col += V * S::LANES;
    }
}

dispatch! {
    /// Runs [`panel_product`] for the instruction set `level`.
    ///
    /// # Safety
    /// The requirements are those of [`panel_product`].
    pub(crate) unsafe fn panel_product_at(
        a: Left, rows: usize, b: *const f32, k_len: usize, c: *mut f32, ldc: usize, scale: *const f32,
    ) = panel_product
}

dispatch! {
    /// Runs [`packed_product`] for the instruction set `level`.
    ///
    /// # Safety
    /// The requirements are those of [`packed_product`].
    pub(crate) unsafe fn packed_product_at(
        a: Left, rows: usize, b: *const f32, k_len: usize, c: Sums, scale: *const f32,
    ) = packed_product
}

dispatch_bf16! {
    /// Runs [`paired_product`] for the instruction set `level`.
    ///
    /// # Safety
    /// The requirements are those of [`paired_product`].
    pub(crate) unsafe fn paired_product_at(
        a: Left, rows: usize, b: *const f32, k_len: usize, c: Sums, scale: *const f32,
    ) = paired_product
}
