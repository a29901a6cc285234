use std::convert::Infallible;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::attention::Attention;
use super::keys::Keys;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rotary::{Rope, Rotary};
use super::rows::{Pack, Unpack};
use super::storage::with_f32;
use super::swiglu::SwiGlu;
use crate::arguments::{
    check_caches, check_ids, check_positions, check_rotated, expect_shape, rotary_positions,
};
use crate::backend::{Backend, Next};
use crate::cpu::keys::KeyBlock;
use crate::error::{Error, Result};
use crate::heads::Heads;
use crate::pool;
use crate::precision::Precision;
use crate::sequences::Sequences;
use crate::simd::SimdLevel;
use crate::weights::{Matrix, Weight};

/// The CPU backend: runs on rayon's current pool, with an instruction set selected at run time.
#[derive(Clone, Debug)]
pub struct Host {
    level: SimdLevel,
    precision: Precision,
}

impl Host {
    /// Creates the backend. `level` is the instruction set of the kernels; `None` selects the best
    /// one.
    ///
    /// # Errors
    /// Returns an error for an instruction set that this processor does not support, and for
    /// [`Precision::F16`].
    pub fn new(level: Option<SimdLevel>, precision: Precision) -> Result<Self> {
        let level = level.unwrap_or_else(SimdLevel::detect);
        if !level.is_supported() {
            return Err(Error::Unsupported {
                what: format!("instruction set {level:?} on this processor"),
                supported: "those of SimdLevel::supported()",
            });
        }
        if precision == Precision::F16 {
            return Err(Error::Unsupported {
                what: "precision f16 on the CPU".into(),
                supported: "f32, bf16; f16 on a CUDA device",
            });
        }
        Ok(Self { level, precision })
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<SwiGlu> {
        let (_, width) = gate_up.dims2()?;
        Ok(SwiGlu { width: width / 2, level: self.level })
    }

    /// Checks the shape of a projection and creates its attention.
    fn attention<'a>(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &'a Tokens,
        shared: Option<&'a KeyBlock>,
    ) -> Result<Attention<'a>> {
        heads.validate()?;
        heads.expect_projection(qkv, tokens.sequences.tokens())?;
        Ok(Attention { heads, level: self.level, starts: tokens.sequences.starts(), shared })
    }
}

/// Positions of the packed tokens of a pass.
#[derive(Debug)]
pub struct Tokens {
    sequences: Arc<Sequences>,
    rotary: Arc<Rotary>,
}

impl Backend for Host {
    type Linear = Linear;
    type Norm = RmsNorm;
    type Embedding = Arc<Matrix>;
    type Rotary = Rotary;
    type Tokens = Tokens;
    type Keys = Keys;
    type Caches<'a> = Vec<&'a mut Keys>;
    type Attended = ();
    type Decoder = Infallible;

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn simd_level(&self) -> Option<SimdLevel> {
        Some(self.level)
    }

    fn check(&self, heads: Heads) -> Result<()> {
        heads.validate()
    }

    fn run<R: Send>(&self, tokens: Option<usize>, work: impl FnOnce() -> R + Send) -> R {
        match tokens {
            Some(tokens) => pool::enter_for(tokens, work),
            None => pool::enter(work),
        }
    }

    fn linear(&self, parts: Vec<Weight>) -> Result<Linear> {
        Linear::new(parts, self.level, self.precision)
    }

    fn output_layer(&self, matrix: Arc<Matrix>) -> Result<Linear> {
        self.linear(vec![(matrix, None)])
    }

    fn norm(&self, weight: Vec<f32>, eps: f32) -> Result<RmsNorm> {
        Ok(RmsNorm::new(weight, eps, self.level))
    }

    fn final_norm(&self, weight: Vec<f32>, eps: f32) -> Result<RmsNorm> {
        self.norm(weight, eps)
    }

    fn embedding(&self, table: &Arc<Matrix>) -> Result<Arc<Matrix>> {
        table.expect_dense()?;
        Ok(Arc::clone(table))
    }

    fn embed(&self, table: &Arc<Matrix>, ids: &[u32]) -> Result<Tensor> {
        check_ids(ids, table.outputs())?;
        let hidden = table.inputs();
        let mut out = vec![0.0; ids.len() * hidden];
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(hidden)) {
            table.dense_row(id as usize, row);
        }
        Ok(Tensor::from_vec(out, (ids.len(), hidden), &Device::Cpu)?)
    }

    fn rotary(&self, cos: Vec<f32>, sin: Vec<f32>, half: usize) -> Result<Rotary> {
        let positions = rotary_positions(&cos, &sin, half)?;
        Ok(Rotary { cos, sin, positions })
    }

    fn tokens(&self, sequences: &Arc<Sequences>, rotary: &Arc<Rotary>) -> Result<Tokens> {
        check_positions(rotary.positions, sequences.context())?;
        Ok(Tokens { sequences: Arc::clone(sequences), rotary: Arc::clone(rotary) })
    }

    fn pack(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let (rows, seq, _) = x.dims3()?;
        sequences.expect_padded(rows, seq)?;
        Ok(x.contiguous()?.apply_op1_no_bwd(&Pack(sequences))?)
    }

    fn unpack(&self, x: &Tensor, sequences: &Sequences, seq: usize) -> Result<Tensor> {
        sequences.expect_padded(sequences.len(), seq)?;
        expect_shape("the packed tokens", x, sequences.tokens(), x.dim(1)?)?;
        Ok(x.apply_op1_no_bwd(&Unpack { sequences, seq })?)
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        self.swiglu(gate_up)?.forward(gate_up)
    }

    fn swiglu_backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor> {
        let op = self.swiglu(gate_up)?;
        expect_shape("the gradient of the activation", dh, gate_up.dim(0)?, op.width)?;
        op.backward(gate_up, dh)
    }

    fn rotate(&self, qkv: &Tensor, heads: Heads, tokens: &Tokens, inverse: bool) -> Result<()> {
        heads.expect_projection(qkv, tokens.sequences.tokens())?;
        let Rotary { cos, positions: rows, .. } = &*tokens.rotary;
        check_rotated(cos.len() / (*rows).max(1), heads.dim)?;
        let positions = tokens.sequences.positions();
        Rope { heads, positions, table: &tokens.rotary, inverse }.apply(qkv)
    }

    fn attention(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<(Tensor, ())> {
        let shared = shared.map(|keys| keys.block(layer, heads, false)).transpose()?;
        Ok((self.attention(qkv, heads, tokens, shared)?.forward(qkv)?, ()))
    }

    fn attention_backward(
        &self,
        qkv: &Tensor,
        (): &(),
        d_out: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<Tensor> {
        let shared = shared.map(|keys| keys.block(layer, heads, true)).transpose()?;
        let width = heads.queries * heads.dim;
        expect_shape("the gradient of attention", d_out, tokens.sequences.tokens(), width)?;
        self.attention(qkv, heads, tokens, shared)?.backward(qkv, d_out)
    }

    fn keys(&self, layers: usize, heads: Heads, differentiable: bool) -> Keys {
        Keys::new(layers, heads, differentiable)
    }

    fn fits(&self, keys: &Keys, layers: usize, heads: Heads) -> bool {
        keys.fits(layers, heads)
    }

    fn caches<'a>(
        &self,
        sequences: &Sequences,
        keys: Vec<&'a mut Keys>,
    ) -> Result<Vec<&'a mut Keys>> {
        check_caches(keys.len(), sequences.len())?;
        Ok(keys)
    }

    fn decoder(&self, _: usize) -> Result<Option<Infallible>> {
        Ok(None)
    }

    fn decode<E: From<Error>>(
        &self,
        decoder: &mut Infallible,
        _: Next<'_, Self>,
        _: impl Fn(Tensor, &Tokens, &mut Vec<&mut Keys>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<u32>, E> {
        match *decoder {}
    }

    fn attention_cached(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        caches: &mut Vec<&mut Keys>,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<Tensor> {
        let shared = shared.map(|keys| keys.block(layer, heads, false)).transpose()?;
        let attention = self.attention(qkv, heads, tokens, shared)?;
        check_caches(caches.len(), tokens.sequences.len())?;
        for keys in caches.iter() {
            keys.block(layer, heads, false)?;
        }
        self.rotate(qkv, heads, tokens, false)?;
        let starts = tokens.sequences.starts();
        let stride = heads.stride();
        with_f32(qkv, |qkv| {
            for (keys, w) in caches.iter_mut().zip(starts.windows(2)) {
                let rows = &qkv[w[0] * stride..w[1] * stride];
                keys.layers[layer].append(rows, stride, heads.key_at(), heads.value_at());
            }
        })?;
        let cached: Vec<_> = caches.iter().map(|keys| &keys.layers[layer]).collect();
        attention.forward_cached(qkv, &cached)
    }
}
