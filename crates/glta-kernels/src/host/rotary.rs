use candle_core::{CpuStorage, InplaceOp1, Layout, Result as CandleResult, Tensor};

use crate::cpu::elementwise;
use crate::error::Result;
use crate::heads::Heads;

/// Cosines and sines of the rotary embedding, both `(positions, dim / 2)`.
#[derive(Debug)]
pub struct Rotary {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) positions: usize,
}

/// Rotary position embedding of the query and key heads of a fused projection.
pub(crate) struct Rope<'a> {
    pub(crate) heads: Heads,
    /// Position of every token.
    pub(crate) positions: &'a [u32],
    pub(crate) table: &'a Rotary,
    /// Whether to rotate backwards. This is the transpose of the rotation, and therefore its
    /// derivative.
    pub(crate) inverse: bool,
}

impl Rope<'_> {
    /// Rotates `qkv: (tokens, stride)` in place.
    pub(crate) fn apply(&self, qkv: &Tensor) -> Result<()> {
        Ok(qkv.inplace_op1(self)?)
    }
}

impl InplaceOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }
    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        let (CpuStorage::F32(all), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("expected a contiguous f32 tensor")
        };
        elementwise::rope(
            &mut all[start..end],
            self.heads.stride(),
            self.heads.queries + self.heads.keys,
            self.heads.dim,
            self.positions,
            &self.table.cos,
            &self.table.sin,
            self.inverse,
        );
        Ok(())
    }
}
