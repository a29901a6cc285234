//! Where the packed tokens of a batch belong, as tables on the device.

use super::accelerator::Accelerator;
use super::driver::{self, Driver};
use super::keys::Keys;
use crate::error::Result;
use crate::rope::RopeTable;
use candle_core::Tensor;
use std::sync::Arc;

/// Tokens of a tile of attention on the ordinary units, and on the matrix units.
pub(super) const TILE: usize = 32;
pub(super) const MATRIX_TILE: usize = 64;

/// Tables of one pass, uploaded at once.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(super) driver: Driver,
    /// Position of every token in its sequence, `(tokens,)`.
    pub(super) positions: Tensor,
    /// Sequence of every token, `(tokens,)`.
    pub(super) sequences: Tensor,
    /// First token of every sequence, and the number of tokens.
    pub(super) starts: Tensor,
    /// Sequence and first token of every run of up to [`TILE`] tokens of a sequence,
    /// `(tiles, 2)` flat.
    pub(super) tiles: Tensor,
    /// The same in runs of up to [`MATRIX_TILE`].
    pub(super) matrix_tiles: Tensor,
    /// Address of every sequence's cache and `capacity << 32 | keys`.
    pub(super) caches: Option<Tensor>,
    /// Whether every sequence has one token.
    pub(super) single: bool,
    pub(super) rope: Arc<RopeTable>,
}

/// `starts` cut into runs of up to `most` tokens of one sequence.
fn tiles(starts: &[usize], most: usize) -> Vec<u32> {
    let mut tiles = Vec::new();
    for (sequence, w) in starts.windows(2).enumerate() {
        for first in (w[0]..w[1]).step_by(most) {
            tiles.extend([sequence as u32, first as u32]);
        }
    }
    tiles
}

impl Tokens {
    pub(crate) fn upload(
        accelerator: &Accelerator,
        starts: &[usize],
        positions: &[u32],
        rope: &Arc<RopeTable>,
    ) -> Result<Self> {
        let [tiles, matrix_tiles] = [TILE, MATRIX_TILE].map(|most| tiles(starts, most));
        let mut values = positions.to_vec();
        for (sequence, w) in starts.windows(2).enumerate() {
            values.resize(positions.len() + w[1], sequence as u32);
        }
        values.extend(starts.iter().map(|&start| start as u32));
        values.extend(tiles.iter().chain(&matrix_tiles));
        let table = accelerator.table(values)?;
        let mut from = 0;
        let mut part = |len| {
            from += len;
            table.narrow(0, from - len, len)
        };
        Ok(Self {
            driver: accelerator.driver.clone(),
            positions: part(positions.len())?,
            sequences: part(positions.len())?,
            starts: part(starts.len())?,
            tiles: part(tiles.len())?,
            matrix_tiles: part(matrix_tiles.len())?,
            caches: None,
            single: starts.windows(2).all(|w| w[1] - w[0] == 1),
            rope: Arc::clone(rope),
        })
    }

    /// With the sequences' caches, whose memory must not move while these tables
    /// are in use.
    pub(crate) fn with_caches<'a>(
        mut self,
        accelerator: &Accelerator,
        caches: impl Iterator<Item = &'a Keys>,
    ) -> Result<Self> {
        let mut values = Vec::new();
        for keys in caches {
            let address = match keys.rows() {
                Some(rows) => driver::address(rows)?,
                None => 0,
            };
            // The bits of an address and of two sizes, whatever sign they have.
            values.extend([address as i64, (keys.capacity() << 32 | keys.len()) as i64]);
        }
        let len = values.len();
        self.caches = Some(Tensor::from_vec(values, len, &accelerator.device)?);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_do_not_cross_sequences() {
        assert_eq!(tiles(&[0, 1, 33, 66], 32), [0, 0, 1, 1, 2, 33, 2, 65]);
        assert_eq!(tiles(&[0, 1, 33, 98], 64), [0, 0, 1, 1, 2, 33, 2, 97]);
        assert!(tiles(&[0], 64).is_empty());
    }
}
