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

/// An NVIDIA GPU, and the dtype of its activations.
#[derive(Clone, Debug)]
pub struct Cuda {
    pub(super) device: Device,
    pub(super) dtype: DType,
    pub(super) driver: Arc<dyn Driver>,
}

impl Cuda {
    /// Prepares a device of [`Device::new_cuda`] or [`Device::new_cuda_with_stream`], and loads the
    /// kernels.
    ///
    /// This turns the event tracking of the [`Device`] off, because its tensors are used in order
    /// on its own stream. Before another stream uses them (through cudarc, or by `to_device` to
    /// another GPU), call [`Device::synchronize`], and keep them until that use has finished.
    ///
    /// # Errors
    /// The device is not a CUDA device or is too old. Without the feature `cuda`, every device is
    /// an error.
    pub fn new(device: &Device, precision: Precision) -> Result<Self> {
        if !device.is_cuda() {
            return Err(Error::Unsupported {
                what: format!("device {:?}", device.location()),
                supported: "CUDA devices",
            });
        }
        let driver = open(device)?;
        // The kernels of packed weights are loaded with the weights.
        Source::COMMON.into_iter().try_for_each(|source| driver.load(source))?;
        Ok(Self { device: device.clone(), dtype: dtype(precision), driver })
    }

    /// The host instead of a GPU, running the same kernels. It is for tests: it is slow, and needs
    /// a C++ compiler at run time.
    #[cfg(feature = "emulator")]
    pub fn emulated(precision: Precision) -> Self {
        Self { device: Device::Cpu, dtype: dtype(precision), driver: Arc::new(Emulator) }
    }

    /// The same device with another dtype of activations.
    pub(super) fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// Creates a u32 tensor on the device, for tables that kernels read.
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
