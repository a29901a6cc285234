//! The left operand of a product with frozen weights, in the order in which
//! the register tile reads it.

use super::matmul::with_scratch;
use super::tile::{Left, tile_rows};
use crate::simd::SimdLevel;
use rayon::prelude::*;

/// Elements below which packing is not worth handing to other threads.
const SEQUENTIAL: usize = 1 << 14;

/// Rows cut into tiles of nearly equal height (13 rows are 7 + 6, not 12 + 1),
/// each input by input: a tile is read front to back, however wide the rows.
#[derive(Clone, Copy)]
pub(crate) struct LeftTiles<'a> {
    data: &'a [f32],
    rows: usize,
    k: usize,
    tiles: usize,
}

impl LeftTiles<'_> {
    /// Packs `x: (rows, width)` for `level` and lends it to `f`. Stored input
    /// `i` is column `gather[i]`, zero where there is no such column.
    pub(crate) fn with<R>(
        level: SimdLevel,
        x: &[f32],
        width: usize,
        gather: Option<&[u32]>,
        f: impl FnOnce(LeftTiles) -> R,
    ) -> R {
        let rows = x.len() / width.max(1);
        let k = gather.map_or(width, <[u32]>::len);
        let tiles = rows.div_ceil(tile_rows(level));
        if rows == 1 && gather.is_none() {
            return f(LeftTiles { data: x, rows, k, tiles });
        }
        with_scratch(rows * k, |data| {
            let mut parts = Vec::with_capacity(tiles);
            let mut rest = &mut *data;
            for t in 0..tiles {
                let (start, end) = bounds(t, tiles, rows);
                let (part, tail) = rest.split_at_mut((end - start) * k);
                rest = tail;
                parts.push((&x[start * width..end * width], part));
            }
            let pack = |(from, to): (&[f32], &mut [f32])| {
                let height = from.len() / width;
                let rows = from.chunks_exact(width).enumerate();
                match gather {
                    None => rows.for_each(|(r, row)| {
                        to[r..].iter_mut().step_by(height).zip(row).for_each(|(t, &v)| *t = v);
                    }),
                    Some(order) => rows.for_each(|(r, row)| {
                        let to = to[r..].iter_mut().step_by(height);
                        to.zip(order).for_each(|(t, &i)| {
                            *t = row.get(i as usize).copied().unwrap_or(0.0);
                        });
                    }),
                }
            };
            if rows * k < SEQUENTIAL {
                parts.into_iter().for_each(pack);
            } else {
                parts.into_par_iter().for_each(pack);
            }
            f(LeftTiles { data, rows, k, tiles })
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn tiles(&self) -> usize {
        self.tiles
    }

    /// The only row.
    pub(crate) fn row(&self) -> &[f32] {
        &self.data[..self.k]
    }

    /// First row of tile `t`, or the number of rows.
    pub(crate) fn start(&self, t: usize) -> usize {
        bounds(t, self.tiles, self.rows).0
    }

    /// The operand of tile `t` from input `from` on, and its number of rows.
    pub(crate) fn tile(&self, t: usize, from: usize) -> (Left, usize) {
        let (start, end) = bounds(t, self.tiles, self.rows);
        let height = end - start;
        let at = &self.data[start * self.k + from * height..];
        (Left { ptr: at.as_ptr(), row_stride: 1, k_stride: height }, height)
    }
}

fn bounds(t: usize, tiles: usize, rows: usize) -> (usize, usize) {
    let tiles = tiles.max(1);
    (t * rows / tiles, (t + 1) * rows / tiles)
}
