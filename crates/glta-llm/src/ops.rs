//! Tensor operations of a frozen decoder layer and their derivatives.
//!
//! Every operation is a candle custom op, so that another device only has to
//! add its own `*_fwd` here. None records anything for `backward()`: the model
//! calls the derivative itself (see `stack.rs`) and no graph is ever built
//! inside it, which saves both the memory and the extra additions of a tape.

use crate::cuda;
use crate::error::Result;
use crate::kernel::attention::{self, Heads, Sequence};
use crate::kernel::elementwise;
use crate::kernel::keys::KeyBlock;
use crate::simd::SimdLevel;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, InplaceOp1, Layout, Result as CandleResult,
    Shape, Tensor,
};
use rayon::prelude::*;

/// The elements of a contiguous f32 tensor.
pub(crate) fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => candle_core::bail!("expected a contiguous tensor, got {layout:?}"),
    }
}

/// Calls `f` with the elements of a contiguous f32 tensor on the CPU.
pub(crate) fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(cpu) => Ok(f(f32_slice(cpu, layout)?)),
        _ => Err(crate::Error::Input("expected a tensor on the CPU".into())),
    }
}

/// RMSNorm with a frozen weight.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) eps: f32,
    pub(crate) level: SimdLevel,
    /// The weight, and what runs it to results of its dtype, where the model is on
    /// another device.
    pub(crate) on_device: Option<(Tensor, cuda::Accelerator)>,
}

impl RmsNorm {
    pub(crate) fn new(
        weight: Vec<f32>,
        eps: f32,
        level: SimdLevel,
        accelerator: Option<&cuda::Accelerator>,
    ) -> Result<Self> {
        let on_device = match accelerator {
            None => None,
            Some(a) => Some((Tensor::from_slice(&weight, weight.len(), &a.device)?, a.clone())),
        };
        Ok(Self { weight, eps, level, on_device })
    }

    /// With results in f32 on any device: the norm behind the last layer.
    pub(crate) fn in_f32(mut self) -> Self {
        self.on_device = self.on_device.map(|(weight, a)| (weight, a.with_dtype(DType::F32)));
        self
    }

    /// `x / rms(x) * w`, `(tokens, hidden)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.on_device {
            None => Ok(x.apply_op1_no_bwd(self)?),
            Some((weight, a)) => {
                cuda::elementwise::rms_norm(&a.driver, x, weight, self.eps, a.dtype)
            }
        }
    }

    /// `d_residual + dL/dx` given `dy`, all `(tokens, hidden)`.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        d_residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        match (&self.on_device, d_residual) {
            (Some((weight, a)), residual) => {
                cuda::elementwise::rms_norm_backward(&a.driver, x, weight, self.eps, dy, residual)
            }
            (None, Some(residual)) => Ok(x.apply_op3_no_bwd(dy, residual, self)?),
            (None, None) => Ok(x.apply_op3_no_bwd(dy, &dy.zeros_like()?, self)?),
        }
    }
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = f32_slice(x, l)?;
        let mut y = vec![0.0; x.len()];
        elementwise::rms_norm(self.level, x, &self.weight, self.eps, &mut y);
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }
}

impl CustomOp3 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm-backward"
    }
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
        residual: &CpuStorage,
        lr: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let mut dx = f32_slice(residual, lr)?.to_vec();
        let (x, dy) = (f32_slice(x, lx)?, f32_slice(dy, ldy)?);
        elementwise::rms_norm_backward(self.level, x, &self.weight, self.eps, dy, &mut dx);
        Ok((CpuStorage::F32(dx), lx.shape().clone()))
    }
}

/// `silu(gate) * up` of the fused projection `(tokens, 2 * width)`.
pub(crate) struct SwiGlu {
    pub(crate) width: usize,
    pub(crate) level: SimdLevel,
}

impl SwiGlu {
    /// `(tokens, 2 * width)` to `(tokens, width)`.
    pub(crate) fn forward(&self, gate_up: &Tensor) -> Result<Tensor> {
        Ok(gate_up.apply_op1_no_bwd(self)?)
    }

    /// Gradient at `gate_up` given `dh: (tokens, width)`.
    pub(crate) fn backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor> {
        Ok(gate_up.apply_op2_no_bwd(dh, self)?)
    }
}

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }
    fn cpu_fwd(&self, gate_up: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let gate_up = f32_slice(gate_up, l)?;
        let mut h = vec![0.0; gate_up.len() / 2];
        elementwise::swiglu(self.level, gate_up, self.width, &mut h);
        let tokens = h.len() / self.width;
        Ok((CpuStorage::F32(h), (tokens, self.width).into()))
    }
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu-backward"
    }
    fn cpu_fwd(
        &self,
        gate_up: &CpuStorage,
        l: &Layout,
        dh: &CpuStorage,
        ldh: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (gate_up, dh) = (f32_slice(gate_up, l)?, f32_slice(dh, ldh)?);
        let mut d = vec![0.0; gate_up.len()];
        elementwise::swiglu_backward(self.level, gate_up, self.width, dh, &mut d);
        Ok((CpuStorage::F32(d), l.shape().clone()))
    }
}

/// Rotary position embedding of the query and key heads of a fused projection.
pub(crate) struct Rope<'a> {
    pub(crate) heads: Heads,
    /// Position of every token.
    pub(crate) positions: &'a [u32],
    /// `(positions, dim / 2)`
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    /// Rotate back: the transpose, which is the derivative.
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
            self.cos,
            self.sin,
            self.inverse,
        );
        Ok(())
    }
}

/// Causal attention of packed sequences over a fused projection after RoPE.
pub(crate) struct Attention<'a> {
    pub(crate) heads: Heads,
    pub(crate) level: SimdLevel,
    /// First token of every sequence, and the number of tokens.
    pub(crate) starts: &'a [usize],
    pub(crate) keys: Keys<'a>,
}

/// Where keys and values come from.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// A block that stands before every sequence.
    pub(crate) shared: Option<&'a KeyBlock>,
    /// One cache per sequence, which ends with the tokens' own keys; `None` to
    /// use the tokens' own keys alone.
    pub(crate) cached: Option<&'a [&'a KeyBlock]>,
}

impl Attention<'_> {
    /// `(tokens, stride)` to `(tokens, queries * dim)`.
    pub(crate) fn forward(&self, qkv: &Tensor) -> Result<Tensor> {
        Ok(qkv.apply_op1_no_bwd(self)?)
    }

    /// Gradient at `qkv` given `d_out: (tokens, queries * dim)`; own keys only.
    pub(crate) fn backward(&self, qkv: &Tensor, d_out: &Tensor) -> Result<Tensor> {
        Ok(qkv.apply_op2_no_bwd(d_out, self)?)
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

    fn sequences<'b>(&'b self, own: &'b [KeyBlock]) -> Vec<Sequence<'b>> {
        let shared = self.keys.shared;
        self.starts
            .windows(2)
            .enumerate()
            .map(|(i, w)| Sequence {
                start: w[0],
                end: w[1],
                blocks: shared
                    .into_iter()
                    .chain([self.keys.cached.map_or_else(|| &own[i], |cached| cached[i])])
                    .collect(),
            })
            .collect()
    }
}

impl CustomOp1 for Attention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn cpu_fwd(&self, qkv: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let qkv = f32_slice(qkv, l)?;
        let own = match self.keys.cached {
            None => self.own_blocks(qkv, false),
            Some(_) => Vec::new(),
        };
        let tokens = qkv.len() / self.heads.stride();
        let width = self.heads.queries * self.heads.dim;
        let mut out = vec![0.0; tokens * width];
        attention::forward(self.level, self.heads, qkv, &self.sequences(&own), &mut out);
        Ok((CpuStorage::F32(out), (tokens, width).into()))
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
        if self.keys.cached.is_some() {
            candle_core::bail!("attention over a cache has no derivative");
        }
        let (qkv, d_out) = (f32_slice(qkv, l)?, f32_slice(d_out, ld)?);
        let own = self.own_blocks(qkv, true);
        let mut d_qkv = vec![0.0; qkv.len()];
        let sequences = self.sequences(&own);
        attention::backward(self.level, self.heads, qkv, d_out, &sequences, &mut d_qkv);
        Ok((CpuStorage::F32(d_qkv), l.shape().clone()))
    }
}
