#[cfg(not(feature = "cuda"))]
use super::absent::open;
use super::driver::Driver;
#[cfg(feature = "emulator")]
use super::emulator::Emulator;
use super::kernels::Source;
#[cfg(feature = "cuda")]
use super::nvidia::open;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::precision::Precision;

/// An NVIDIA GPU, and the dtype of activations on it.
#[derive(Clone, Debug)]
pub struct Cuda {
    pub(super) device: Device,
    pub(super) dtype: DType,
    pub(super) driver: Arc<dyn Driver>,
}

impl Cuda {
    /// Prepares a device, as [`Device::new_cuda`] or [`Device::new_cuda_with_stream`]
    /// makes it, and loads the kernels.
    ///
    /// It turns the [`Device`]'s event tracking off: tensors are used on its own stream,
    /// in order. Where another stream uses them (through cudarc, or by `to_device` to
    /// another GPU), call [`Device::synchronize`] first, and keep them until that use has
    /// finished.
    ///
    /// # Errors
    /// A device that is not a CUDA device or is too old; every device where the crate
    /// was built without the feature `cuda`.
    pub fn new(device: &Device, precision: Precision) -> Result<Self> {
        if !device.is_cuda() {
            return Err(Error::Unsupported {
                what: format!("device {:?}", device.location()),
                supported: "CUDA devices",
            });
        }
        let driver = open(device)?;
        // Those of packed weights are loaded with the weights.
        Source::COMMON.into_iter().try_for_each(|source| driver.load(source))?;
        Ok(Self { device: device.clone(), dtype: dtype(precision), driver })
    }

    /// The host in the place of a GPU, which runs the same kernels. For tests: slow, and
    /// it needs a C++ compiler when it runs.
    #[cfg(feature = "emulator")]
    pub fn emulated(precision: Precision) -> Self {
        Self { device: Device::Cpu, dtype: dtype(precision), driver: Arc::new(Emulator) }
    }

    /// The same with another dtype of activations.
    pub(super) fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// A u32 tensor on the device, for tables that kernels read.
    pub(super) fn table(&self, values: Vec<u32>) -> Result<Tensor> {
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
