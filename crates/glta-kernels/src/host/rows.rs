//! Converts between padded batches and packed tokens.

use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape};

use super::storage::f32_slice;
use crate::sequences::Sequences;

/// The operation that packs `(batch, seq, width)` to `(tokens, width)`.
pub(super) struct Pack<'a>(pub(super) &'a Sequences);

/// The operation that unpacks `(tokens, width)` to `(batch, seq, width)`; padding is zero.
pub(super) struct Unpack<'a> {
    pub(super) sequences: &'a Sequences,
    pub(super) seq: usize,
}

impl CustomOp1 for Pack<'_> {
    fn name(&self) -> &'static str {
        "pack-rows"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (_, seq, width) = l.shape().dims3()?;
        let x = f32_slice(x, l)?;
        let mut out = Vec::with_capacity(self.0.tokens() * width);
        for (row, w) in self.0.starts().windows(2).enumerate() {
            let at = row * seq * width;
            out.extend_from_slice(&x[at..at + (w[1] - w[0]) * width]);
        }
        Ok((CpuStorage::F32(out), (self.0.tokens(), width).into()))
    }
}

impl CustomOp1 for Unpack<'_> {
    fn name(&self) -> &'static str {
        "unpack-rows"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (_, width) = l.shape().dims2()?;
        let x = f32_slice(x, l)?;
        let rows = self.sequences.len();
        let mut out = Vec::with_capacity(rows * self.seq * width);
        for (row, w) in self.sequences.starts().windows(2).enumerate() {
            out.extend_from_slice(&x[w[0] * width..w[1] * width]);
            out.resize((row + 1) * self.seq * width, 0.0);
        }
        Ok((CpuStorage::F32(out), (rows, self.seq, width).into()))
    }
}
