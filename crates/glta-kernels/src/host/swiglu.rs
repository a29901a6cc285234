use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor,
};

use super::storage::f32_slice;
use crate::cpu::elementwise;
use crate::error::Result;
use crate::simd::SimdLevel;

/// The operation `silu(gate) * up` on a fused projection `(tokens, 2 * width)`.
pub(crate) struct SwiGlu {
    pub(crate) width: usize,
    pub(crate) level: SimdLevel,
}

impl SwiGlu {
    /// Computes the result `(tokens, width)` for `gate_up: (tokens, 2 * width)`.
    pub(crate) fn forward(&self, gate_up: &Tensor) -> Result<Tensor> {
        Ok(gate_up.apply_op1_no_bwd(self)?)
    }

    /// Computes the gradient with respect to `gate_up`, given `dh: (tokens, width)`.
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
