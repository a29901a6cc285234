//! Products with frozen weights: `Y = X Wᵀ` and the derivative `dX = dY W`.
//!
//! A weight panel is decoded into a small buffer and immediately multiplied with a block of rows in
//! the second-level cache. The chain of operations of an output element does not depend on the
//! number of rows, threads or blocks.

use std::ops::Range;

use gemm_common::cache::CACHE_INFO;

use super::left::LeftTiles;
use super::pairs::round_pairs_at;
use super::scratch::with_scratch;
use super::shared::Shared;
use super::tile::{Sums, packed_product_at, paired_product_at};
use crate::panel::{Element, PANEL};
use crate::pool::for_each;
use crate::simd::{Simd, SimdLevel, dispatch};
use crate::weights::{Matrix, Segment, panel_scales};

/// Number of stored rows that are decoded at a time: 64 KiB of f32.
const DEPTH: usize = 512;
/// Number of outputs that are decoded at a time in the backward product. They and the panel must
/// fit the first-level cache.
const BACKWARD_DEPTH: usize = 128;
/// Number of rows below which a block is not split, because each part decodes the weights again.
const MIN_ROWS: usize = 96;
/// Number of tasks per thread for a single row. The number is small, so that each task reads a long
/// contiguous range of weights.
const ROW_TASKS: usize = 4;

/// One weight of a fused product, and its first column in `Y`.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) matrix: &'a Matrix,
    pub(crate) column: usize,
}

/// The addends of every output: `bias: (ldy,)` and `residual: (rows, ldy)`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Addends<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) residual: Option<&'a [f32]>,
}

/// Returns how many bytes of the left operand a block may have: half of the second-level cache, so
/// that the block stays there. Smaller blocks decode each panel more often.
fn left_bytes() -> usize {
    (CACHE_INFO[1].cache_bytes / 2).clamp(1 << 17, 1 << 21)
}

/// Returns the number of row tiles per task.
fn block_tiles(x: &LeftTiles, row_len: usize, panels: usize) -> usize {
    let (rows, row_len) = (x.rows(), row_len / x.element().inputs());
    let cached = (left_bytes() / 4 / row_len.max(1)).max(MIN_ROWS);
    // With few panels, the threads share the work by blocks of rows.
    let wanted_blocks = (4 * rayon::current_num_threads()).div_ceil(panels.max(1));
    let fed = rows.div_ceil(wanted_blocks).max(MIN_ROWS);
    let blocks = rows.div_ceil(cached.min(fed)).max(1);
    x.tiles().div_ceil(blocks).max(1)
}

/// Computes `Y = X Wᵀ + bias + residual` for every part. `x: (rows, k_stored)` contains f32, or
/// pairs if the weights are decoded to pairs. `y` is `(rows, ldy)`. Columns of the parts are
/// written without being read; other columns stay unchanged.
///
/// The product is summed before the residual is added. Otherwise each partial sum would be rounded
/// to the last digit of a large residual.
///
/// # Safety
/// `y` must be valid for writing `rows * ldy` elements.
pub(crate) unsafe fn forward(
    level: SimdLevel,
    parts: &[Part],
    x: LeftTiles,
    y: Shared<f32>,
    ldy: usize,
    addends: Addends,
) {
    let Some(first) = parts.first() else { return };
    let (k, rows) = (first.matrix.k_stored, x.rows());
    assert!(addends.bias.is_none_or(|b| b.len() == ldy));
    assert!(addends.residual.is_none_or(|r| r.len() == rows * ldy));
    let panels: Vec<(Part, usize)> = parts
        .iter()
        .flat_map(|&part| (0..part.matrix.n_panels()).map(move |p| (part, p)))
        .collect();
    for Part { matrix, column } in parts {
        assert!(matrix.k_stored == k && column + matrix.n <= ldy);
        if let Element::Pair { distance } = x.element() {
            assert_eq!(matrix.pair_distance(), Some(distance));
        }
    }
    // Writes a panel's columns of `rows` from their sums.
    let write = |part: &Part, panel: usize, rows: Range<usize>, sums: &[f32]| {
        let column = part.column + panel * PANEL;
        let width = PANEL.min(part.matrix.n - panel * PANEL);
        for (row, sums) in rows.zip(sums.chunks_exact(PANEL)) {
            let at = row * ldy + column;
            // SAFETY: only this task writes these columns of these rows.
            let out = unsafe { y.slice(at, width) };
            out.copy_from_slice(&sums[..width]);
            for addend in [
                addends.bias.map(|bias| &bias[column..column + width]),
                addends.residual.map(|residual| &residual[at..at + width]),
            ] {
                let addend = addend.into_iter().flatten();
                out.iter_mut().zip(addend).for_each(|(out, addend)| *out += addend);
            }
        }
    };
    if rows == 1 {
        let run = panels.len().div_ceil(ROW_TASKS * rayon::current_num_threads()).max(1);
        for_each(panels.len().div_ceil(run), |task| {
            for (part, panel) in panels.iter().skip(task * run).take(run) {
                let mut sums = [0.0; PANEL];
                let to = sums.as_mut_ptr();
                // SAFETY: `sums` has 32 elements.
                unsafe { part.matrix.row_product(level, *panel, x.row(), x.element(), to) };
                write(part, *panel, 0..1, &sums);
            }
        });
        return;
    }
    let step = block_tiles(&x, k, panels.len());
    let blocks = x.tiles().div_ceil(step);
    for_each(blocks * panels.len(), |task| {
        let (part, panel) = &panels[task % panels.len()];
        let first = task / panels.len() * step;
        let tiles = first..x.tiles().min(first + step);
        let rows = x.start(tiles.start)..x.start(tiles.end);
        with_scratch((DEPTH + rows.len()) * PANEL, |scratch| {
            let (weights, sums) = scratch.split_at_mut(DEPTH * PANEL);
            let column = part.column + panel * PANEL;
            let whole = (panel + 1) * PANEL <= part.matrix.n;
            let plain = addends.bias.is_none() && addends.residual.is_none();
            // SAFETY: these columns of these rows exist, and only this task writes them.
            let last = (whole && plain).then(|| unsafe { (y.at(rows.start * ldy + column), ldy) });
            let mut sums = Panel::new(sums);
            forward_panel(level, part.matrix, *panel, x, tiles, weights, &mut sums, last);
            if let Some(sums) = sums.rest() {
                write(part, *panel, rows, sums);
            }
        });
    });
}

/// The sums of the columns of a panel.
struct Panel<'a> {
    /// The sums, `(rows, 32)`.
    sums: &'a mut [f32],
    /// Whether `sums` contains the result of an earlier addition.
    started: bool,
    /// Whether the last addition wrote the result to its destination.
    written: bool,
}

impl<'a> Panel<'a> {
    fn new(sums: &'a mut [f32]) -> Self {
        Self { sums, started: false, written: false }
    }

    /// Returns the sums, unless the last addition wrote them to their destination.
    fn rest(self) -> Option<&'a [f32]> {
        if !self.started {
            self.sums.fill(0.0);
        }
        (!self.written).then_some(self.sums)
    }
}

/// Adds `X · panel` to `sums` for the rows of some tiles. The last addition writes to `last`
/// instead: a pointer to the first element, and the row stride.
#[allow(clippy::too_many_arguments)]
fn forward_panel(
    level: SimdLevel,
    matrix: &Matrix,
    panel: usize,
    x: LeftTiles,
    tiles: Range<usize>,
    weights: &mut [f32],
    sums: &mut Panel,
    last: Option<(*mut f32, usize)>,
) {
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
        let element = x.element();
        let at = |s: &Segment| (s.start - start) / element.inputs() * PANEL;
        for s in now {
            let weights = &mut weights[at(s)..];
            match element {
                Element::Single => {
                    matrix.decode_rows(level, panel, s, s.start..s.start + s.len, false, weights);
                }
                Element::Pair { .. } => matrix.decode_pairs(level, panel, s, weights),
            }
        }
        for s in now {
            let scales = panel_scales(level, matrix, panel, s.group);
            let inputs = s.start..s.start + s.len;
            let to = last.filter(|_| inputs.end == matrix.k_stored);
            multiply(level, x, tiles.clone(), inputs, &weights[at(s)..], &scales, sums, to);
        }
    }
}

/// Adds `scale · X[.., inputs] · weights` to `sums` for the rows of some tiles. If `to` is given,
/// writes the result to `to` instead.
#[allow(clippy::too_many_arguments)]
fn multiply(
    level: SimdLevel,
    x: LeftTiles,
    tiles: Range<usize>,
    inputs: Range<usize>,
    weights: &[f32],
    scale: &[f32; PANEL],
    panel: &mut Panel,
    to: Option<(*mut f32, usize)>,
) {
    let sums = &mut *panel.sums;
    let (from, k_len) = (inputs.start / x.element().inputs(), inputs.len() / x.element().inputs());
    assert!(weights.len() >= k_len * PANEL && x.start(tiles.end) <= x.rows());
    assert!(sums.len() >= (x.start(tiles.end) - x.start(tiles.start)) * PANEL);
    let own = sums.as_mut_ptr();
    let (place, to_stride) = to.unwrap_or((own, PANEL));
    let from_sums = if panel.started { own.cast_const() } else { std::ptr::null() };
    let mut sums = Sums { from: from_sums, from_stride: PANEL, to: place, to_stride };
    for t in tiles {
        let (left, height) = x.tile(t, from);
        let (weights, scale) = (weights.as_ptr(), scale.as_ptr());
        // SAFETY: the tile has `k - from` elements. The other lengths were checked; the caller
        // guarantees that `to` is valid.
        unsafe {
            match x.element() {
                Element::Single => {
                    packed_product_at(level, left, height, weights, k_len, sums, scale);
                }
                Element::Pair { .. } => {
                    paired_product_at(level, left, height, weights, k_len, sums, scale);
                }
            }
            sums = sums.row(height);
        }
    }
    panel.started = true;
    panel.written |= to.is_some();
}

/// Computes `dX = dY W`, summed over the parts. `dy: (rows, ldy)` contains f32, or pairs of
/// neighbours. `dx: (rows, k_stored)` is written without being read.
///
/// # Safety
/// `dx` must be valid for writing `rows * k_stored` elements.
pub(crate) unsafe fn backward(level: SimdLevel, parts: &[Part], dy: LeftTiles, dx: Shared<f32>) {
    let Some(first) = parts.first() else { return };
    let k = first.matrix.k_stored;
    let outputs: usize = parts.iter().map(|p| p.matrix.n).sum();
    for part in parts {
        assert!(part.matrix.k_stored == k);
    }
    let panels = k.div_ceil(PANEL);
    let step = block_tiles(&dy, outputs, panels);
    let blocks = dy.tiles().div_ceil(step);
    for_each(blocks * panels, |task| {
        let first_k = task % panels * PANEL;
        let first = task / panels * step;
        let tiles = first..dy.tiles().min(first + step);
        let rows = dy.start(tiles.start)..dy.start(tiles.end);
        with_scratch((BACKWARD_DEPTH + PANEL + rows.len()) * PANEL, |scratch| {
            let (weights, rest) = scratch.split_at_mut(BACKWARD_DEPTH * PANEL);
            let (square, sums) = rest.split_at_mut(PANEL * PANEL);
            let width = PANEL.min(k - first_k);
            // SAFETY: these columns of these rows exist, and only this task writes them.
            let to = (width == PANEL).then(|| unsafe { (dx.at(rows.start * k + first_k), k) });
            let mut sums = Panel::new(sums);
            for (p, part) in parts.iter().enumerate() {
                let to = to.filter(|_| p + 1 == parts.len());
                let (tiles, sums) = (tiles.clone(), &mut sums);
                backward_panel(level, part, first_k, dy, tiles, weights, square, sums, to);
            }
            if let Some(sums) = sums.rest() {
                for (row, sums) in rows.zip(sums.chunks_exact(PANEL)) {
                    // SAFETY: only this task writes these columns of these rows.
                    unsafe { dx.slice(row * k + first_k, width) }.copy_from_slice(&sums[..width]);
                }
            }
        });
    });
}

/// Scale of 1. A product with a scale sums from zero and then adds the result to the output, and
/// such partial sums are more accurate than one chain over thousands of elements.
static ONES: [f32; PANEL] = [1.0; PANEL];

/// Adds `dY · W[.., first_k..first_k + 32]` of one part to `sums`. The last addition writes to
/// `last`.
#[allow(clippy::too_many_arguments)]
fn backward_panel(
    level: SimdLevel,
    part: &Part,
    first_k: usize,
    dy: LeftTiles,
    tiles: Range<usize>,
    weights: &mut [f32],
    square: &mut [f32],
    sums: &mut Panel,
    last: Option<(*mut f32, usize)>,
) {
    let matrix = part.matrix;
    let end_k = matrix.k_stored.min(first_k + PANEL);
    let Some(segment) = matrix.segment_of(first_k) else { return };
    for from in (0..matrix.n).step_by(BACKWARD_DEPTH) {
        let to = matrix.n.min(from + BACKWARD_DEPTH);
        for panel in from / PANEL..to.div_ceil(PANEL) {
            if end_k - first_k < PANEL {
                square.fill(0.0);
            }
            matrix.decode_rows(level, panel, &segment, first_k..end_k, true, square);
            let size = PANEL / dy.element().inputs() * PANEL;
            let to = &mut weights[(panel - from / PANEL) * size..][..size];
            // SAFETY: `square` is 32 x 32; `to` is 32 x 32, or 16 x 32 for pairs.
            unsafe {
                match dy.element() {
                    Element::Single => {
                        transpose_square_at(level, square.as_ptr(), to.as_mut_ptr());
                    }
                    Element::Pair { distance } => {
                        let mut pairs = [0.0; PANEL * PANEL / 2];
                        round_pairs_at(level, square, distance, &mut pairs);
                        transpose_half_at(level, pairs.as_ptr(), to.as_mut_ptr());
                    }
                }
            }
        }
        let inputs = part.column + from..part.column + to;
        let to = last.filter(|_| to == matrix.n);
        multiply(level, dy, tiles.clone(), inputs, weights, &ONES, sums, to);
    }
}

impl Matrix {
    /// Returns the segment that contains the 32 stored rows from `first`.
    fn segment_of(&self, first: usize) -> Option<Segment> {
        let at = self.segments.partition_point(|s| s.start + s.len <= first);
        self.segments.get(at).copied()
    }
}

/// Transposes `32 x WIDTH` elements.
#[inline(always)]
unsafe fn transpose<S: Simd, const WIDTH: usize>(src: *const f32, dst: *mut f32) {
    for r in (0..PANEL).step_by(16) {
        for c in (0..WIDTH).step_by(16) {
            S::transpose16(src.add(r * WIDTH + c), WIDTH, dst.add(c * PANEL + r), PANEL);
        }
    }
}

#[inline(always)]
unsafe fn transpose_square<S: Simd>(src: *const f32, dst: *mut f32) {
    transpose::<S, PANEL>(src, dst)
}

#[inline(always)]
unsafe fn transpose_half<S: Simd>(src: *const f32, dst: *mut f32) {
    transpose::<S, { PANEL / 2 }>(src, dst)
}

dispatch! { unsafe fn transpose_square_at(src: *const f32, dst: *mut f32) = transpose_square }
dispatch! { unsafe fn transpose_half_at(src: *const f32, dst: *mut f32) = transpose_half }
