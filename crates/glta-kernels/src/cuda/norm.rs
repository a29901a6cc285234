use candle_core::Tensor;

use super::device::Cuda;
use super::elementwise;
use super::quantized::Normed;
use crate::backend::Norm;
use crate::error::Result;

/// RMSNorm on the device; the results have the dtype of its [`Cuda`].
#[derive(Debug)]
pub struct RmsNorm {
    cuda: Cuda,
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub(super) fn upload(cuda: &Cuda, weight: &[f32], eps: f32) -> Result<Self> {
        let weight = Tensor::from_slice(weight, weight.len(), &cuda.device)?;
        Ok(Self { cuda: cuda.clone(), weight, eps })
    }
}

impl RmsNorm {
    /// The norm, to be computed by another kernel.
    pub(super) fn normed(&self) -> Normed<'_> {
        Normed { weight: &self.weight, eps: self.eps }
    }
}

impl Norm for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Cuda { dtype, stream, .. } = &self.cuda;
        elementwise::rms_norm(stream, x, &self.weight, self.eps, *dtype)
    }

    fn backward(&self, x: &Tensor, dy: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let stream = &self.cuda.stream;
        elementwise::rms_norm_backward(stream, x, &self.weight, self.eps, dy, residual)
    }

    fn resident_bytes(&self) -> usize {
        4 * self.weight.elem_count()
    }
}
