//! Causal attention over packed sequences, and its derivative.
//!
//! Scores, weighted sums and all four products of the backward pass use the register tile of the
//! linear layers. The backward pass recomputes the probabilities, so they are never stored.

use super::keys::{KeyBlock, KeyHead};
use super::scratch::with_scratch;
use super::shared::Shared;
use super::tile::{Left, panel_product_at};
use crate::heads::Heads;
use crate::panel::PANEL;
use crate::pool::for_each;
use crate::simd::{Simd, SimdLevel, dispatch};

/// Number of query rows per block. It limits the scratch memory to `QUERIES x keys`.
const QUERIES: usize = 48;
/// Number of multiply-adds below which the work stays on one thread.
const SEQUENTIAL: usize = 1 << 13;

/// One sequence: the rows `start..end` of the packed tokens, and its blocks of keys, oldest first.
/// The last block ends with the tokens' own keys.
pub(crate) struct Sequence<'a> {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) blocks: Vec<&'a KeyBlock>,
}

/// A block of keys and its position in a row of scores.
struct Placed<'a> {
    head: KeyHead<'a>,
    /// Index in the sequence of the block's first key.
    first: usize,
    /// First column of the block in a row of scores, a multiple of 32.
    column: usize,
}

fn place<'a>(blocks: &[&'a KeyBlock], head: usize) -> (Vec<Placed<'a>>, usize, usize) {
    let (mut first, mut column) = (0, 0);
    let mut placed = Vec::with_capacity(blocks.len());
    for block in blocks {
        placed.push(Placed { head: block.head(head), first, column });
        first += block.len();
        column += block.len().next_multiple_of(PANEL);
    }
    (placed, first, column)
}

/// Queries that are computed together. Row `r` attends to the first `visible + step * r` keys, or
/// to the last `window` of them.
#[derive(Clone, Copy)]
struct Queries {
    ptr: *const f32,
    row_stride: usize,
    rows: usize,
    visible: usize,
    step: usize,
    window: usize,
}

impl Queries {
    fn visible_of(&self, row: usize) -> usize {
        self.visible + self.step * row
    }
    /// Returns the columns of the block's keys that lie before the window of the row.
    fn past(&self, block: &Placed, row: usize) -> std::ops::Range<usize> {
        let before = self.visible_of(row).saturating_sub(self.window);
        block.column..block.column + before.saturating_sub(block.first).min(block.head.len)
    }
    /// Returns the number of the block's keys that the last row can attend to, counted from the
    /// first key of the block.
    fn seen(&self, block: &Placed) -> usize {
        self.visible_of(self.rows - 1).saturating_sub(block.first).min(block.head.len)
    }
    fn left(&self) -> Left {
        Left { ptr: self.ptr, row_stride: self.row_stride, k_stride: 1 }
    }
}

/// Computes `out = softmax(Q Kᵀ / √d) V` per head, with `qkv: (tokens, stride)` after RoPE and
/// `out: (tokens, queries * dim)`.
pub(crate) fn forward(
    level: SimdLevel,
    heads: Heads,
    qkv: &[f32],
    sequences: &[Sequence],
    out: &mut [f32],
) {
    let width = heads.queries * heads.dim;
    let stride = heads.stride();
    let mut tasks = Vec::new();
    let mut work = 0;
    for (s, sequence) in sequences.iter().enumerate() {
        let keys: usize = sequence.blocks.iter().map(|b| b.len()).sum();
        work += (sequence.end - sequence.start) * keys * width;
        for head in 0..heads.keys {
            for from in (sequence.start..sequence.end).step_by(QUERIES) {
                tasks.push((s, head, from));
            }
        }
    }
    assert!(sequences.iter().all(|s| s.end * stride <= qkv.len() && s.end * width <= out.len()));
    let out = Shared::new(out);
    let run = |&(s, head, from): &(usize, usize, usize)| {
        let sequence = &sequences[s];
        let to = sequence.end.min(from + QUERIES);
        let (placed, total, columns) = place(&sequence.blocks, head);
        let group = heads.group();
        // For the first row, its own key is the last visible one.
        let visible = total - (sequence.end - from) + 1;
        let first = from * stride + head * group * heads.dim;
        // SAFETY: the offsets are inside `qkv` and `out`, and only this task writes these heads of
        // these rows.
        unsafe {
            let result = |g: usize| out.at(from * width + (head * group + g) * heads.dim);
            if to - from == 1 {
                // The heads of one token are the rows of one product.
                let queries = Queries {
                    ptr: qkv.as_ptr().add(first),
                    row_stride: heads.dim,
                    rows: group,
                    visible,
                    step: 0,
                    window: heads.window(),
                };
                attend(level, heads, &placed, columns, queries, result(0), heads.dim);
            } else {
                for g in 0..group {
                    let queries = Queries {
                        ptr: qkv.as_ptr().add(first + g * heads.dim),
                        row_stride: stride,
                        rows: to - from,
                        visible,
                        step: 1,
                        window: heads.window(),
                    };
                    attend(level, heads, &placed, columns, queries, result(g), width);
                }
            }
        }
    };
    if work < SEQUENTIAL {
        tasks.iter().for_each(run);
    } else {
        for_each(tasks.len(), |t| run(&tasks[t]));
    }
}

/// Computes the attention of some queries over placed blocks of keys.
///
/// # Safety
/// `out` must be valid for `dim` columns of the query rows at stride `out_stride`.
unsafe fn attend(
    level: SimdLevel,
    heads: Heads,
    placed: &[Placed],
    columns: usize,
    queries: Queries,
    out: *mut f32,
    out_stride: usize,
) {
    let padded = heads.dim.next_multiple_of(PANEL);
    with_scratch(queries.rows * (columns + padded + 1), |scratch| {
        let (scores, rest) = scratch.split_at_mut(queries.rows * columns);
        let (sums, inverse) = rest.split_at_mut(queries.rows * padded);
        probabilities(level, heads, placed, columns, queries, scores, inverse);
        sums.fill(0.0);
        for block in placed {
            let weights =
                Left { ptr: scores.as_ptr().add(block.column), row_stride: columns, k_stride: 1 };
            for p in 0..padded / PANEL {
                let values = block.head.value_rows.as_ptr().add(p * block.head.row_panel);
                let c = sums.as_mut_ptr().add(p * PANEL);
                let seen = queries.seen(block);
                panel_product_at(
                    level,
                    weights,
                    queries.rows,
                    values,
                    seen,
                    c,
                    padded,
                    std::ptr::null(),
                );
            }
        }
        for r in 0..queries.rows {
            for j in 0..heads.dim {
                *out.add(r * out_stride + j) = sums[r * padded + j] * inverse[r];
            }
        }
    });
}

/// Fills `scores: (rows, columns)` with `e^(s - max)`, or 0 for keys that the row does not attend
/// to, and `inverse` with the reciprocal of each row's sum.
unsafe fn probabilities(
    level: SimdLevel,
    heads: Heads,
    placed: &[Placed],
    columns: usize,
    queries: Queries,
    scores: &mut [f32],
    inverse: &mut [f32],
) {
    scores.fill(0.0);
    for block in placed {
        products(
            level,
            queries.left(),
            queries,
            block,
            block.head.key_columns,
            heads.dim,
            columns,
            scores,
        );
    }
    for (r, inverse) in inverse.iter_mut().enumerate().take(queries.rows) {
        let row = &mut scores[r * columns..(r + 1) * columns];
        let visible = queries.visible_of(r);
        // The blocks are adjacent, so a row is one range of columns, and its sum does not depend on
        // the boundaries between blocks of whole panels.
        let mut used = 0;
        let unseen = |block: &Placed| {
            let seen = visible.saturating_sub(block.first).min(block.head.len);
            let width = queries.seen(block).next_multiple_of(PANEL);
            block.column + seen..block.column + width
        };
        for block in placed {
            let gap = unseen(block);
            used = used.max(gap.end);
            row[gap].fill(f32::NEG_INFINITY);
            row[queries.past(block, r)].fill(f32::NEG_INFINITY);
        }
        let max = max_of(level, &row[..used]);
        let sum = exp_in_place(level, &mut row[..used], max, heads.scale());
        for block in placed {
            row[unseen(block)].fill(0.0);
            row[queries.past(block, r)].fill(0.0);
        }
        *inverse = 1.0 / sum;
    }
}

/// Adds `left · columnsᵀ` to `c[.., block]` for every panel of keys that some row attends to.
#[allow(clippy::too_many_arguments)]
unsafe fn products(
    level: SimdLevel,
    left: Left,
    queries: Queries,
    block: &Placed,
    panels: &[f32],
    dim: usize,
    columns: usize,
    c: &mut [f32],
) {
    for p in 0..queries.seen(block).div_ceil(PANEL) {
        let b = panels.as_ptr().add(p * dim * PANEL);
        let c = c.as_mut_ptr().add(block.column + p * PANEL);
        panel_product_at(level, left, queries.rows, b, dim, c, columns, std::ptr::null());
    }
}

/// Computes the gradient with respect to the input of [`forward`] at `qkv` (after RoPE), given
/// `d_out`.
///
/// The last block of each sequence must contain exactly the sequence's own tokens. The earlier
/// blocks are constants. All blocks must be differentiable.
pub(crate) fn backward(
    level: SimdLevel,
    heads: Heads,
    qkv: &[f32],
    d_out: &[f32],
    sequences: &[Sequence],
    d_qkv: &mut [f32],
) {
    assert!(d_qkv.len() == qkv.len());
    let stride = heads.stride();
    assert!(sequences.iter().all(|s| s.end * stride <= qkv.len()
        && s.end * heads.queries * heads.dim <= d_out.len()
        && s.blocks.last().is_some_and(|b| b.len() == s.end - s.start)));
    let d_qkv = Shared::new(d_qkv);
    // Run one task per query head, so that one sequence occupies many threads. The query heads of a
    // group share keys; their gradients are summed afterwards.
    let padded = heads.dim.next_multiple_of(PANEL);
    let mut parts: Vec<f32> = Vec::with_capacity(qkv.len() / stride * heads.queries * 2 * padded);
    let parts = Shared::spare(&mut parts);
    // Offset and size of a query head's dK, `(tokens, padded)`; the head's dV follows.
    let part = |sequence: &Sequence, head: usize| {
        let size = (sequence.end - sequence.start) * padded;
        let at = (sequence.start * heads.queries * padded + head * size) * 2;
        (at, size)
    };
    for_each(sequences.len() * heads.queries, |task| {
        let (sequence, head) = (&sequences[task / heads.queries], task % heads.queries);
        let (at, size) = part(sequence, head);
        // SAFETY: only this task writes this query head of the sequence's rows and these parts,
        // which fit the buffer.
        unsafe {
            let (d_keys, d_values) = (parts.slice(at, size), parts.slice(at + size, size));
            backward_head(level, heads, qkv, d_out, sequence, head, d_keys, d_values, d_qkv);
        }
    });
    for_each(sequences.len() * heads.keys, |task| {
        let (sequence, head) = (&sequences[task / heads.keys], task % heads.keys);
        for (side, column) in [heads.key_at(), heads.value_at()].into_iter().enumerate() {
            for r in 0..sequence.end - sequence.start {
                let at = (sequence.start + r) * stride + column + head * heads.dim;
                // SAFETY: the parts are written, and only this task writes this key head.
                unsafe {
                    let out = d_qkv.slice(at, heads.dim);
                    for g in 0..heads.group() {
                        let (at, size) = part(sequence, head * heads.group() + g);
                        let from = &*parts.slice(at + side * size + r * padded, heads.dim);
                        match g {
                            0 => out.copy_from_slice(from),
                            _ => out.iter_mut().zip(from).for_each(|(out, from)| *out += from),
                        }
                    }
                }
            }
        }
    });
}

/// Computes the backward pass of one query head: its columns of `d_qkv`, and its part of the
/// gradients of the sequence's own keys and values, `(tokens, padded dim)`. The memory for these
/// gradients need not be initialised.
#[allow(clippy::too_many_arguments)]
unsafe fn backward_head(
    level: SimdLevel,
    heads: Heads,
    qkv: &[f32],
    d_out: &[f32],
    sequence: &Sequence,
    head: usize,
    d_keys: &mut [f32],
    d_values: &mut [f32],
    d_qkv: Shared<f32>,
) {
    let (stride, width, dim) = (heads.stride(), heads.queries * heads.dim, heads.dim);
    let (placed, total, columns) = place(&sequence.blocks, head / heads.group());
    let Some(own) = placed.last() else { return };
    let padded = dim.next_multiple_of(PANEL);
    let tokens = sequence.end - sequence.start;
    let rows = tokens.min(QUERIES);
    let sizes = [
        rows * columns, // P
        rows * columns, // dP, then dS
        rows * padded,  // dQ
        rows * padded,  // panels of Q and of dO
        rows,
    ];
    with_scratch(sizes.iter().sum(), |mut scratch| {
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let [p, ds, d_queries, panels, inverse] = sizes.map(&mut take);
        d_keys.fill(0.0);
        d_values.fill(0.0);
        for from in (sequence.start..sequence.end).step_by(QUERIES) {
            let to = sequence.end.min(from + QUERIES);
            let rows = to - from;
            let q_column = head * dim;
            let queries = Queries {
                ptr: qkv.as_ptr().add(from * stride + q_column),
                row_stride: stride,
                rows,
                visible: total - (sequence.end - from) + 1,
                step: 1,
                window: heads.window(),
            };
            let d_left = Left {
                ptr: d_out.as_ptr().add(from * width + q_column),
                row_stride: width,
                k_stride: 1,
            };
            let p = &mut p[..rows * columns];
            let ds = &mut ds[..rows * columns];
            probabilities(level, heads, &placed, columns, queries, p, inverse);
            ds.fill(0.0);
            for block in &placed {
                products(level, d_left, queries, block, block.head.value_columns, dim, columns, ds);
            }
            for ((p, ds), &inverse) in
                p.chunks_exact_mut(columns).zip(ds.chunks_exact_mut(columns)).zip(inverse.iter())
            {
                softmax_backward(level, p, ds, inverse, heads.scale());
            }

            let d_queries = &mut d_queries[..rows * padded];
            d_queries.fill(0.0);
            let seen_own = queries.seen(own);
            for panel in 0..padded / PANEL {
                for block in &placed {
                    let left = Left {
                        ptr: ds.as_ptr().add(block.column),
                        row_stride: columns,
                        k_stride: 1,
                    };
                    let b = block.head.key_rows.as_ptr().add(panel * block.head.row_panel);
                    let c = d_queries.as_mut_ptr().add(panel * PANEL);
                    panel_product_at(
                        level,
                        left,
                        rows,
                        b,
                        queries.seen(block),
                        c,
                        padded,
                        std::ptr::null(),
                    );
                }
                // Compute dK += dSᵀ Q and dV += Pᵀ dO for the sequence's own keys.
                let sides = [
                    (ds.as_ptr(), queries.left(), d_keys.as_mut_ptr()),
                    (p.as_ptr(), d_left, d_values.as_mut_ptr()),
                ];
                for (weights, right, c) in sides {
                    copy_panel(right, rows, dim, panel, panels);
                    let left =
                        Left { ptr: weights.add(own.column), row_stride: 1, k_stride: columns };
                    let c = c.add(panel * PANEL);
                    panel_product_at(
                        level,
                        left,
                        seen_own,
                        panels.as_ptr(),
                        rows,
                        c,
                        padded,
                        std::ptr::null(),
                    );
                }
            }
            for r in 0..rows {
                d_qkv
                    .slice((from + r) * stride + q_column, dim)
                    .copy_from_slice(&d_queries[r * padded..r * padded + dim]);
            }
        }
    });
}

/// Copies the columns `32 panel..32 panel + 32` of `rows` rows into a `(rows, 32)` block.
unsafe fn copy_panel(from: Left, rows: usize, dim: usize, panel: usize, to: &mut [f32]) {
    let width = PANEL.min(dim - panel * PANEL);
    for r in 0..rows {
        let row = &mut to[r * PANEL..(r + 1) * PANEL];
        row[width..].fill(0.0);
        std::ptr::copy_nonoverlapping(
            from.ptr.add(r * from.row_stride + panel * PANEL),
            row.as_mut_ptr(),
            width,
        );
    }
}

fn max_of(level: SimdLevel, x: &[f32]) -> f32 {
    // SAFETY: the length is a multiple of 32.
    unsafe { max_of_at(level, x) }
}

fn exp_in_place(level: SimdLevel, x: &mut [f32], max: f32, scale: f32) -> f32 {
    // SAFETY: the length is a multiple of 32.
    unsafe { exp_in_place_at(level, x, max, scale) }
}

/// Computes `p *= inverse`, then `ds = p (dp - Σ p dp) scale`, in place.
fn softmax_backward(level: SimdLevel, p: &mut [f32], ds: &mut [f32], inverse: f32, scale: f32) {
    // SAFETY: both have the same length, a multiple of 32.
    unsafe { softmax_backward_at(level, p, ds, inverse, scale) }
}

#[inline(always)]
unsafe fn max_of_generic<S: Simd>(x: &[f32]) -> f32 {
    let mut max = S::splat(f32::NEG_INFINITY);
    for i in (0..x.len()).step_by(S::LANES) {
        max = S::max(max, S::load(x.as_ptr().add(i)));
    }
    S::max_lane(max)
}

#[inline(always)]
unsafe fn exp_in_place_generic<S: Simd>(x: &mut [f32], max: f32, scale: f32) -> f32 {
    let mut sum = S::splat(0.0);
    for i in (0..x.len()).step_by(S::LANES) {
        let p = x.as_mut_ptr().add(i);
        let e = S::exp(S::mul(S::sub(S::load(p), S::splat(max)), S::splat(scale)));
        // The row's largest value is 1, so probabilities below 1e-20 are negligible. Zero avoids
        // denormals, which are very slow. With this order of operands a NaN stays a NaN.
        let e = S::max(S::splat(0.0), S::sub(e, S::splat(1e-20)));
        S::store(p, e);
        sum = S::add(sum, e);
    }
    S::sum(sum)
}

#[inline(always)]
unsafe fn softmax_backward_generic<S: Simd>(
    p: &mut [f32],
    ds: &mut [f32],
    inverse: f32,
    scale: f32,
) {
    let mut acc = S::splat(0.0);
    for i in (0..p.len()).step_by(S::LANES) {
        let at = p.as_mut_ptr().add(i);
        let v = S::mul(S::load(at), S::splat(inverse));
        S::store(at, v);
        acc = S::fma(v, S::load(ds.as_ptr().add(i)), acc);
    }
    let dot = S::splat(S::sum(acc));
    for i in (0..p.len()).step_by(S::LANES) {
        let at = ds.as_mut_ptr().add(i);
        let v = S::mul(S::load(p.as_ptr().add(i)), S::sub(S::load(at), dot));
        S::store(at, S::mul(v, S::splat(scale)));
    }
}

dispatch! { unsafe fn max_of_at(x: &[f32]) -> f32 = max_of_generic }
dispatch! { unsafe fn exp_in_place_at(x: &mut [f32], max: f32, scale: f32) -> f32 = exp_in_place_generic }
dispatch! { unsafe fn softmax_backward_at(p: &mut [f32], ds: &mut [f32], inverse: f32, scale: f32) = softmax_backward_generic }
