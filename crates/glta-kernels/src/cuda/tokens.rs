//! Positions of the packed tokens of a batch, as tables on the device.

use std::sync::Arc;

use candle_core::Tensor;

use super::device::Cuda;
use super::rotary::Rotary;
use crate::error::Result;
use crate::sequences::Sequences;

/// Tokens per tile of attention on the f32 units.
pub(super) const TILE: usize = 32;
/// Tokens per tile of attention on the tensor cores.
pub(super) const MATRIX_TILE: usize = 64;

/// Tables of one pass, uploaded together.
#[derive(Debug)]
pub struct Tokens {
    /// Position of every token in its sequence, `(tokens,)`.
    pub(super) positions: Tensor,
    /// Sequence of every token, `(tokens,)`.
    pub(super) sequences: Tensor,
    /// First token of each sequence, and the number of tokens.
    pub(super) starts: Tensor,
    /// Sequence and first token of each run of up to [`TILE`] tokens of a sequence, `(tiles, 2)`
    /// flat.
    pub(super) tiles: Tensor,
    /// The same for runs of up to [`MATRIX_TILE`].
    pub(super) matrix_tiles: Tensor,
    pub(super) rotary: Arc<Rotary>,
}

/// Cuts `starts` into runs of up to `most` tokens of one sequence.
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
    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.positions.elem_count()
    }

    /// Number of sequences.
    pub(super) fn sequence_count(&self) -> usize {
        self.starts.elem_count() - 1
    }

    pub(super) fn upload(cuda: &Cuda, sequences: &Sequences, rotary: &Arc<Rotary>) -> Result<Self> {
        let (starts, positions) = (sequences.starts(), sequences.positions());
        let [tiles, matrix_tiles] = [TILE, MATRIX_TILE].map(|most| tiles(starts, most));
        let mut values = positions.to_vec();
        for (sequence, w) in starts.windows(2).enumerate() {
            values.resize(positions.len() + w[1], sequence as u32);
        }
        values.extend(starts.iter().map(|&start| start as u32));
        values.extend(tiles.iter().chain(&matrix_tiles));
        let table = cuda.table(values)?;
        let mut from = 0;
        let mut part = |len| {
            from += len;
            table.narrow(0, from - len, len)
        };
        Ok(Self {
            positions: part(positions.len())?,
            sequences: part(positions.len())?,
            starts: part(starts.len())?,
            tiles: part(tiles.len())?,
            matrix_tiles: part(matrix_tiles.len())?,
            rotary: Arc::clone(rotary),
        })
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
