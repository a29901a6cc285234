use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor,
};
use rayon::prelude::*;

use super::storage::f32_slice;
use crate::cpu::attention::{self, Sequence};
use crate::cpu::keys::KeyBlock;
use crate::error::Result;
use crate::heads::Heads;
use crate::simd::SimdLevel;

/// Causal attention of packed sequences over a fused projection after RoPE.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) heads: Heads,
    pub(crate) level: SimdLevel,
    /// Index of the first token of every sequence, followed by the total number of tokens.
    pub(crate) starts: &'a [usize],
    /// A block of keys that precedes every sequence.
    pub(crate) shared: Option<&'a KeyBlock>,
}

impl<'a> Attention<'a> {
    /// Returns the attention `(tokens, queries * dim)` of `qkv: (tokens, stride)`.
    pub(crate) fn forward(&self, qkv: &Tensor) -> Result<Tensor> {
        Ok(qkv.apply_op1_no_bwd(self)?)
    }

    /// Computes the gradient with respect to `qkv`, given `d_out: (tokens, queries * dim)`. No
    /// gradient is computed for the shared keys.
    pub(crate) fn backward(&self, qkv: &Tensor, d_out: &Tensor) -> Result<Tensor> {
        Ok(qkv.apply_op2_no_bwd(d_out, self)?)
    }

    /// Computes [`Self::forward`] over one cache per sequence. Each cache ends with the tokens' own
    /// keys.
    pub(crate) fn forward_cached(&self, qkv: &Tensor, caches: &[&'a KeyBlock]) -> Result<Tensor> {
        Ok(qkv.apply_op1_no_bwd(&Cached { attention: *self, caches })?)
    }

    fn own_blocks(&self, qkv: &[f32], differentiable: bool) -> Vec<KeyBlock> {
        let heads = self.heads;
        self.starts
            .par_windows(2)
            .map(|w| {
                let mut block = KeyBlock::new(heads.keys, heads.dim, differentiable);
                let rows = &qkv[w[0] * heads.stride()..w[1] * heads.stride()];
                block.append(rows, heads.stride(), heads.key_at(), heads.value_at());
                block
            })
            .collect()
    }

    /// Returns the sequences. `last` yields, for each sequence, the block that ends with the
    /// sequence's own keys.
    fn sequences<'b>(&self, last: impl Iterator<Item = &'b KeyBlock>) -> Vec<Sequence<'b>>
    where
        'a: 'b,
    {
        self.starts
            .windows(2)
            .zip(last)
            .map(|(w, last)| Sequence {
                start: w[0],
                end: w[1],
                blocks: self.shared.into_iter().chain([last]).collect(),
            })
            .collect()
    }

    fn run(&self, qkv: &[f32], sequences: &[Sequence]) -> (CpuStorage, Shape) {
        let tokens = qkv.len() / self.heads.stride();
        let width = self.heads.queries * self.heads.dim;
        let mut out = vec![0.0; tokens * width];
        attention::forward(self.level, self.heads, qkv, sequences, &mut out);
        (CpuStorage::F32(out), (tokens, width).into())
    }
}

impl CustomOp1 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn cpu_fwd(&self, qkv: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let qkv = f32_slice(qkv, l)?;
        let own = self.own_blocks(qkv, false);
        Ok(self.run(qkv, &self.sequences(own.iter())))
    }
}

impl CustomOp2 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention-backward"
    }
    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        l: &Layout,
        d_out: &CpuStorage,
        ld: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (qkv, d_out) = (f32_slice(qkv, l)?, f32_slice(d_out, ld)?);
        let own = self.own_blocks(qkv, true);
        let mut d_qkv = vec![0.0; qkv.len()];
        let sequences = self.sequences(own.iter());
        attention::backward(self.level, self.heads, qkv, d_out, &sequences, &mut d_qkv);
        Ok((CpuStorage::F32(d_qkv), l.shape().clone()))
    }
}

/// Attention over caches, for which no derivative is implemented.
struct Cached<'a, 'b> {
    attention: Attention<'a>,
    caches: &'b [&'a KeyBlock],
}

impl CustomOp1 for Cached<'_, '_> {
    fn name(&self) -> &'static str {
        "cached-attention"
    }
    fn cpu_fwd(&self, qkv: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let sequences = self.attention.sequences(self.caches.iter().copied());
        Ok(self.attention.run(f32_slice(qkv, l)?, &sequences))
    }
}
