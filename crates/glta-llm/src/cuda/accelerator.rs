//! A GPU that a model runs on.

use super::driver::Driver;
use super::kernels::Source;
use crate::error::{Error, Result};
use crate::model::Precision;
use candle_core::{DType, Device, Tensor};

/// A GPU that a model runs on, and the dtype of its activations.
#[derive(Clone, Debug)]
pub(crate) struct Accelerator {
    pub(crate) device: Device,
    pub(crate) dtype: DType,
    pub(crate) driver: Driver,
}

impl Accelerator {
    /// For a device that a model is to run on; `None` for the CPU.
    ///
    /// # Errors
    /// A device without kernels; a precision that it does not have.
    pub(crate) fn new(device: &Device, precision: Precision) -> Result<Option<Self>> {
        if device.is_cpu() {
            if precision == Precision::F16 {
                return Err(Error::Unsupported {
                    what: "precision f16 on the CPU".into(),
                    supported: "f32, bf16; f16 on a CUDA device",
                });
            }
            return Ok(None);
        }
        if !device.is_cuda() {
            return Err(Error::Unsupported {
                what: format!("device {:?}", device.location()),
                supported: "the CPU, and CUDA devices",
            });
        }
        let driver = Driver::prepare(device)?;
        Source::COMMON.into_iter().try_for_each(|source| driver.load(source))?;
        Ok(Some(Self { device: device.clone(), dtype: dtype(precision), driver }))
    }

    /// The host in the place of a GPU: its driver runs the kernels there.
    #[cfg(test)]
    pub(crate) fn emulated(precision: Precision) -> Self {
        Self { device: Device::Cpu, dtype: dtype(precision), driver: Driver }
    }

    /// The same with another dtype of activations.
    pub(crate) fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// A u32 tensor on the device, for tables that kernels read.
    pub(crate) fn table(&self, values: Vec<u32>) -> Result<Tensor> {
        let len = values.len();
        Ok(Tensor::from_vec(values, len, &self.device)?)
    }
}

fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
    }
}
