//! The left operand of a product with frozen weights, in the order in which the register tile reads
//! its elements.

use rayon::prelude::*;

use super::pairs::round_pairs_at;
use super::scratch::with_scratch;
use super::tile::{Left, tile_rows};
use crate::panel::Element;
use crate::simd::{Simd, SimdLevel, dispatch};

/// Number of elements below which packing stays on one thread.
const SEQUENTIAL: usize = 1 << 14;
/// Number of rows and columns of a block that is transposed at a time.
const BLOCK: usize = 16;

/// Rows in tiles of nearly equal height (13 rows are 7 + 6, not 12 + 1), stored input by input, so
/// that a tile is read sequentially at any row width.
#[derive(Clone, Copy)]
pub(crate) struct LeftTiles<'a> {
    data: &'a [f32],
    element: Element,
    rows: usize,
    /// Number of elements per row.
    k: usize,
    tiles: usize,
}

impl LeftTiles<'_> {
    /// Packs `x: (rows, width)` for `level` and passes the tiles to `f`. Stored input `i` is column
    /// `gather[i]`, or zero if there is no such column. Pairs consist of stored inputs.
    pub(crate) fn with<R>(
        level: SimdLevel,
        x: &[f32],
        width: usize,
        gather: Option<&[u32]>,
        element: Element,
        f: impl FnOnce(LeftTiles) -> R,
    ) -> R {
        match element {
            Element::Single => Self::pack(level, x, width, gather, element, f),
            Element::Pair { distance } => {
                with_pairs(level, x, width, gather, distance, |x, width| {
                    Self::pack(level, x, width, None, element, f)
                })
            }
        }
    }

    fn pack<R>(
        level: SimdLevel,
        x: &[f32],
        width: usize,
        gather: Option<&[u32]>,
        element: Element,
        f: impl FnOnce(LeftTiles) -> R,
    ) -> R {
        let rows = x.len() / width.max(1);
        let k = gather.map_or(width, <[u32]>::len);
        let tiles = rows.div_ceil(tile_rows(level));
        if rows == 1 && gather.is_none() {
            return f(LeftTiles { data: x, element, rows, k, tiles });
        }
        with_scratch(rows * k, |data| {
            let mut parts = Vec::with_capacity(tiles);
            let mut rest = &mut *data;
            for t in 0..tiles {
                let (start, end) = bounds(t, tiles, rows);
                let (part, tail) = rest.split_at_mut((end - start) * k);
                rest = tail;
                parts.push((&x[start * width..], end - start, part));
            }
            let pack = |(from, height, to): (&[f32], usize, &mut [f32])| {
                let rows = from.chunks_exact(width).take(height).enumerate();
                match gather {
                    None => {
                        let done = interleave(level, from, width, height, to);
                        rows.for_each(|(r, row)| {
                            let to = to[done * height + r..].iter_mut().step_by(height);
                            to.zip(&row[done..]).for_each(|(t, &v)| *t = v);
                        });
                    }
                    Some(order) => rows.for_each(|(r, row)| {
                        gathered(row, order, to[r..].iter_mut().step_by(height));
                    }),
                }
            };
            if rows * k < SEQUENTIAL {
                parts.into_iter().for_each(pack);
            } else {
                parts.into_par_iter().for_each(pack);
            }
            f(LeftTiles { data, element, rows, k, tiles })
        })
    }

    pub(crate) fn element(&self) -> Element {
        self.element
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn tiles(&self) -> usize {
        self.tiles
    }

    /// Returns the row of a single-row operand.
    pub(crate) fn row(&self) -> &[f32] {
        &self.data[..self.k]
    }

    /// Returns the first row of tile `t`; the number of rows for `t` beyond the last tile.
    pub(crate) fn start(&self, t: usize) -> usize {
        bounds(t, self.tiles, self.rows).0
    }

    /// Returns the operand of tile `t` from element `from` on, and its number of rows.
    pub(crate) fn tile(&self, t: usize, from: usize) -> (Left, usize) {
        let (start, end) = bounds(t, self.tiles, self.rows);
        let height = end - start;
        let at = &self.data[start * self.k + from * height..];
        (Left { ptr: at.as_ptr(), row_stride: 1, k_stride: height }, height)
    }
}

/// Writes the first columns of `height` rows of `from: (.., width)` to `to: (width, height)`.
/// Returns the number of columns written, which fill whole registers.
fn interleave(
    level: SimdLevel,
    from: &[f32],
    width: usize,
    height: usize,
    to: &mut [f32],
) -> usize {
    // Blocks of fewer rows would be mostly discarded, and a block must not read beyond the last
    // row.
    if !(BLOCK / 2 + 1..=BLOCK).contains(&height) || from.len() < BLOCK * width {
        return 0;
    }
    assert!(to.len() >= width * height);
    // The elements written after a column are overwritten by the next column.
    let blocks = (width * height).saturating_sub(BLOCK - height) / (BLOCK * height);
    // SAFETY: sixteen rows can be read, and the last column of the last block, including the
    // elements written after it, is inside `to`.
    unsafe { interleave_at(level, from.as_ptr(), width, height, blocks, to.as_mut_ptr()) };
    blocks * BLOCK
}

/// Transposes blocks of sixteen rows.
///
/// # Safety
/// `from` must be valid for 16 rows of `width`, of at least `16 blocks` columns, and `to` for `16
/// blocks height + 16 - height` elements.
#[inline(always)]
unsafe fn interleave_blocks<S: Simd>(
    from: *const f32,
    width: usize,
    height: usize,
    blocks: usize,
    mut to: *mut f32,
) {
    let mut block = [0f32; BLOCK * BLOCK];
    for b in 0..blocks {
        // SAFETY: the function's contract covers these reads and writes.
        unsafe {
            S::transpose16(from.add(b * BLOCK), width, block.as_mut_ptr(), BLOCK);
            for column in block.chunks_exact(BLOCK) {
                for at in (0..BLOCK).step_by(S::LANES) {
                    S::store(to.add(at), S::load(column.as_ptr().add(at)));
                }
                to = to.add(height);
            }
        }
    }
}

dispatch! {
    unsafe fn interleave_at(
        from: *const f32, width: usize, height: usize, blocks: usize, to: *mut f32,
    ) = interleave_blocks
}

/// Writes the columns `order` of a row, and zero for a missing column.
fn gathered<'a>(row: &[f32], order: &[u32], to: impl Iterator<Item = &'a mut f32>) {
    to.zip(order).for_each(|(t, &i)| *t = row.get(i as usize).copied().unwrap_or(0.0));
}

/// Passes the rows of `x: (rows, width)` to `f` as pairs of bf16, with the number of pairs per row.
fn with_pairs<R>(
    level: SimdLevel,
    x: &[f32],
    width: usize,
    gather: Option<&[u32]>,
    distance: usize,
    f: impl FnOnce(&[f32], usize) -> R,
) -> R {
    let k = gather.map_or(width, <[u32]>::len);
    assert!(k.is_multiple_of(2 * distance), "{k} inputs do not pair at a distance of {distance}");
    let round = |(from, to): (&[f32], &mut [f32])| match gather {
        // SAFETY: the processor supports `level`.
        None => unsafe { round_pairs_at(level, from, distance, to) },
        Some(order) => with_scratch(k, |stored| {
            gathered(from, order, stored.iter_mut());
            // SAFETY: the processor supports `level`.
            unsafe { round_pairs_at(level, stored, distance, to) };
        }),
    };
    let rows = x.len() / width.max(1);
    with_scratch(rows * k / 2, |pairs| {
        if rows * k < SEQUENTIAL {
            x.chunks_exact(width).zip(pairs.chunks_exact_mut(k / 2)).for_each(round);
        } else {
            x.par_chunks_exact(width).zip(pairs.par_chunks_exact_mut(k / 2)).for_each(round);
        }
        f(pairs, k / 2)
    })
}

fn bounds(t: usize, tiles: usize, rows: usize) -> (usize, usize) {
    let tiles = tiles.max(1);
    (t * rows / tiles, (t + 1) * rows / tiles)
}
