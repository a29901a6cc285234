//! Products with frozen weights: `Y += X Wᵀ` and its transpose `dX += dY W`.
//!
//! A weight panel is decoded into a small buffer and multiplied at once with a
//! block of rows that stays in the second-level cache. Each output element is
//! the same chain of operations whatever the number of rows, threads or
//! blocks.

use super::tile::{Left, panel_product_at};
use super::{PANEL, Shared};
use crate::simd::SimdLevel;
use crate::weights::{Matrix, Segment, panel_scales};
use rayon::prelude::*;
use std::cell::Cell;

/// Stored rows decoded at a time: 64 KiB of f32.
const DEPTH: usize = 512;
/// Bytes of the left operand that should stay in the second-level cache.
const LEFT_BYTES: usize = 1 << 20;
/// Rows below which a block is not split further: decoding must pay.
const MIN_ROWS: usize = 96;

/// One weight of a fused product, and where its columns lie in `Y`.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) matrix: &'a Matrix,
    pub(crate) column: usize,
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends a buffer of `len` f32 with unspecified content.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.take();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    SCRATCH.set(buffer);
    result
}

fn block_rows(rows: usize, row_len: usize, panels: usize) -> usize {
    let cached = (LEFT_BYTES / 4 / row_len.max(1)).max(MIN_ROWS);
    // With few panels, the rows must feed the threads.
    let wanted_blocks = (4 * rayon::current_num_threads()).div_ceil(panels.max(1));
    let fed = rows.div_ceil(wanted_blocks).max(MIN_ROWS);
    // Blocks of equal height.
    rows.div_ceil(rows.div_ceil(cached.min(fed)).max(1)).max(1)
}

/// `Y = X Wᵀ + bias + residual` for every part: `x: (rows, k_stored)`, `y` and
/// `residual: (rows, ldy)`, `bias: (ldy,)`; `y` comes in zero.
///
/// The product is summed by itself first: added up on top of a large residual,
/// each of its parts would be rounded to the residual's last digit.
#[allow(clippy::too_many_arguments)]
pub(crate) fn forward(
    level: SimdLevel,
    parts: &[Part],
    x: &[f32],
    rows: usize,
    y: &mut [f32],
    ldy: usize,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) {
    let Some(first) = parts.first() else { return };
    let k = first.matrix.k_stored;
    assert!(x.len() >= rows * k && y.len() >= rows * ldy);
    assert!(bias.is_none_or(|b| b.len() == ldy) && residual.is_none_or(|r| r.len() == y.len()));
    let panels: Vec<(Part, usize)> = parts
        .iter()
        .flat_map(|&part| (0..part.matrix.n_panels()).map(move |p| (part, p)))
        .collect();
    for (part, _) in &panels {
        assert!(part.matrix.k_stored == k && part.column + part.matrix.n <= ldy);
    }
    let height = block_rows(rows, k, panels.len());
    let blocks = rows.div_ceil(height);
    let y = Shared::new(y);
    (0..blocks * panels.len()).into_par_iter().for_each(|task| {
        let (part, panel) = panels[task % panels.len()];
        let start = task / panels.len() * height;
        let end = rows.min(start + height);
        with_scratch(DEPTH * PANEL + height * PANEL, |scratch| {
            let (weights, edge) = scratch.split_at_mut(DEPTH * PANEL);
            let column = part.column + panel * PANEL;
            let width = PANEL.min(part.matrix.n - panel * PANEL);
            // SAFETY: this task alone writes these columns of these rows.
            unsafe {
                let out = y.at(start * ldy + column);
                with_full_panel(out, ldy, end - start, width, edge, |c, ldc| {
                    forward_panel(
                        level,
                        part.matrix,
                        panel,
                        &x[start * k..end * k],
                        c,
                        ldc,
                        weights,
                    );
                });
                for row in start..end {
                    let at = row * ldy + column;
                    let out = y.slice(at, width);
                    if let Some(bias) = bias {
                        add(out, &bias[column..column + width]);
                    }
                    if let Some(residual) = residual {
                        add(out, &residual[at..at + width]);
                    }
                }
            }
        });
    });
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Runs `f` on a 32-column view of `c`: in place, or by way of `edge` where
/// the last panel has fewer columns.
///
/// # Safety
/// `c` valid for `width` columns of `rows` rows of stride `ldc`, `edge` for
/// `rows * 32`.
unsafe fn with_full_panel(
    c: *mut f32,
    ldc: usize,
    rows: usize,
    width: usize,
    edge: &mut [f32],
    f: impl FnOnce(*mut f32, usize),
) {
    if width == PANEL {
        return f(c, ldc);
    }
    for (r, row) in edge.chunks_exact_mut(PANEL).take(rows).enumerate() {
        row.fill(0.0);
        std::ptr::copy_nonoverlapping(c.add(r * ldc), row.as_mut_ptr(), width);
    }
    f(edge.as_mut_ptr(), PANEL);
    for (r, row) in edge.chunks_exact(PANEL).take(rows).enumerate() {
        std::ptr::copy_nonoverlapping(row.as_ptr(), c.add(r * ldc), width);
    }
}

/// # Safety
/// `c` valid for 32 columns of all rows of `x`.
unsafe fn forward_panel(
    level: SimdLevel,
    matrix: &Matrix,
    panel: usize,
    x: &[f32],
    c: *mut f32,
    ldc: usize,
    weights: &mut [f32],
) {
    let k = matrix.k_stored;
    let rows = x.len() / k.max(1);
    if rows == 1 && matrix.packed_row_product(level, panel, x, c) {
        return;
    }
    let mut segments = matrix.segments.as_slice();
    while !segments.is_empty() {
        let mut depth = 0;
        let count = segments
            .iter()
            .take_while(|s| {
                depth += s.len;
                depth <= DEPTH
            })
            .count();
        let (now, later) = segments.split_at(count);
        segments = later;
        let start = now[0].start;
        for s in now {
            let rows = s.start..s.start + s.len;
            matrix.decode_rows(
                level,
                panel,
                s,
                rows,
                false,
                &mut weights[(s.start - start) * PANEL..],
            );
        }
        for s in now {
            let scales = panel_scales(level, matrix, panel, s.group);
            let a = Left { ptr: x.as_ptr().add(s.start), row_stride: k, k_stride: 1 };
            let b = weights.as_ptr().add((s.start - start) * PANEL);
            panel_product_at(level, a, rows, b, s.len, c, ldc, scales.as_ptr());
        }
    }
}

/// `dX += dY W`, summed over the parts: `dy: (rows, ldy)`, `dx: (rows, k_stored)`.
pub(crate) fn backward(
    level: SimdLevel,
    parts: &[Part],
    dy: &[f32],
    rows: usize,
    ldy: usize,
    dx: &mut [f32],
) {
    let Some(first) = parts.first() else { return };
    let k = first.matrix.k_stored;
    assert!(dy.len() >= rows * ldy && dx.len() >= rows * k);
    for part in parts {
        assert!(part.matrix.k_stored == k && part.column + part.matrix.n <= ldy);
    }
    let panels = k.div_ceil(PANEL);
    let height = block_rows(rows, ldy, panels);
    let blocks = rows.div_ceil(height);
    let dx = Shared::new(dx);
    (0..blocks * panels).into_par_iter().for_each(|task| {
        let first_k = task % panels * PANEL;
        let start = task / panels * height;
        let end = rows.min(start + height);
        with_scratch((DEPTH + PANEL + height) * PANEL, |scratch| {
            let (weights, rest) = scratch.split_at_mut(DEPTH * PANEL);
            let (square, edge) = rest.split_at_mut(PANEL * PANEL);
            let width = PANEL.min(k - first_k);
            // SAFETY: this task alone writes these columns of these rows.
            unsafe {
                let out = dx.at(start * k + first_k);
                with_full_panel(out, k, end - start, width, edge, |c, ldc| {
                    let dy = &dy[start * ldy..end * ldy];
                    backward_panel(level, parts, first_k, dy, ldy, c, ldc, weights, square);
                });
            }
        });
    });
}

/// Scale of a sum that is added to the output part by part: more accurate than
/// one chain over thousands of elements.
static ONES: [f32; PANEL] = [1.0; PANEL];

/// # Safety
/// `c` valid for 32 columns of all rows of `dy`.
#[allow(clippy::too_many_arguments)]
unsafe fn backward_panel(
    level: SimdLevel,
    parts: &[Part],
    first_k: usize,
    dy: &[f32],
    ldy: usize,
    c: *mut f32,
    ldc: usize,
    weights: &mut [f32],
    square: &mut [f32],
) {
    let rows = dy.len() / ldy;
    for part in parts {
        let matrix = part.matrix;
        let end_k = matrix.k_stored.min(first_k + PANEL);
        let Some(segment) = matrix.segment_of(first_k) else {
            continue;
        };
        for from in (0..matrix.n).step_by(DEPTH) {
            let to = matrix.n.min(from + DEPTH);
            for panel in from / PANEL..to.div_ceil(PANEL) {
                if end_k - first_k < PANEL {
                    square.fill(0.0);
                }
                matrix.decode_rows(level, panel, &segment, first_k..end_k, true, square);
                transpose_square_at(
                    level,
                    square.as_ptr(),
                    weights.as_mut_ptr().add((panel * PANEL - from) * PANEL),
                );
            }
            let a = Left { ptr: dy.as_ptr().add(part.column + from), row_stride: ldy, k_stride: 1 };
            panel_product_at(level, a, rows, weights.as_ptr(), to - from, c, ldc, ONES.as_ptr());
        }
    }
}

impl Matrix {
    /// The segment that holds the 32 stored rows from `first`.
    fn segment_of(&self, first: usize) -> Option<Segment> {
        let at = self.segments.partition_point(|s| s.start + s.len <= first);
        self.segments.get(at).copied()
    }
}

#[inline(always)]
unsafe fn transpose_square<S: crate::simd::Simd>(src: *const f32, dst: *mut f32) {
    for r in [0, 16] {
        for c in [0, 16] {
            S::transpose16(src.add(r * PANEL + c), PANEL, dst.add(c * PANEL + r), PANEL);
        }
    }
}

crate::simd::dispatch! {
    /// Transposes a `32 x 32` block.
    pub(super) unsafe fn transpose_square_at(src: *const f32, dst: *mut f32) = transpose_square
}
