use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, Layout, Result as CandleResult, Shape, Tensor,
};

use super::storage::f32_slice;
use crate::backend;
use crate::cpu::elementwise;
use crate::error::Result;
use crate::simd::SimdLevel;

/// RMSNorm with a frozen weight.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Vec<f32>,
    eps: f32,
    level: SimdLevel,
}

impl RmsNorm {
    pub(crate) fn new(weight: Vec<f32>, eps: f32, level: SimdLevel) -> Self {
        Self { weight, eps, level }
    }
}

impl backend::Norm for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.apply_op1_no_bwd(self)?)
    }

    fn backward(&self, x: &Tensor, dy: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        match residual {
            Some(residual) => Ok(x.apply_op3_no_bwd(dy, residual, self)?),
            None => Ok(x.apply_op3_no_bwd(dy, &dy.zeros_like()?, self)?),
        }
    }

    fn resident_bytes(&self) -> usize {
        4 * self.weight.len()
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
