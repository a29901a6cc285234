#[cfg(not(feature = "cuda"))]
use super::absent::open;
#[cfg(feature = "emulator")]
use super::emulator::Emulator;
use super::kept::KeptWeights;
use super::kernels::Source;
#[cfg(feature = "cuda")]
use super::nvidia::open;
use super::stream::Stream;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};

use crate::error::{Error, Result};
use crate::precision::Precision;

/// An NVIDIA GPU, and the dtype of its activations.
#[derive(Clone, Debug)]
pub struct Cuda {
    pub(super) device: Device,
    pub(super) dtype: DType,
    pub(super) stream: Arc<Stream>,
    /// Zeros that kernels count with, and leave as zeros. Kernels of a device run one after the
    /// other.
    pub(super) counters: Tensor,
    /// Whether 16-bit products with one row run on the f32 units.
    pub(super) one_row_in_f32: bool,
    /// Whether decoding repeats recorded launches.
    pub(super) graphs: bool,
    pub(super) kept: KeptWeights,
}

/// Number of [`Cuda::counters`]: enough for the panels of an output layer of millions of tokens.
const COUNTERS: usize = 1 << 14;

impl Cuda {
    /// Prepares a device of [`Device::new_cuda`] or [`Device::new_cuda_with_stream`], and loads the
    /// kernels.
    ///
    /// This turns the event tracking of the [`Device`] off, because its tensors are used in order
    /// on its own stream. Before another stream uses them (through cudarc, or by `to_device` to
    /// another GPU), call [`Device::synchronize`], and keep them until that use has finished.
    ///
    /// # Errors
    /// Returns an error if the device is not a CUDA device or is too old, and for every device
    /// without the feature `cuda`.
    pub fn new(device: &Device, precision: Precision) -> Result<Self> {
        if !device.is_cuda() {
            return Err(Error::Unsupported {
                what: format!("device {:?}", device.location()),
                supported: "CUDA devices",
            });
        }
        let stream = Arc::new(Stream::new(open(device)?));
        // The kernels of packed weights are loaded with the weights.
        Source::COMMON.into_iter().try_for_each(|source| stream.load(source))?;
        Self::on(device, stream, precision)
    }

    /// Creates a backend that runs the GPU kernels on the host. It is for tests: it is slow, and
    /// needs a C++ compiler at run time.
    ///
    /// # Panics
    /// Panics if there is no memory for the counters.
    #[cfg(feature = "emulator")]
    #[allow(clippy::expect_used)]
    pub fn emulated(precision: Precision) -> Self {
        let stream = Arc::new(Stream::new(Arc::new(Emulator)));
        Self::on(&Device::Cpu, stream, precision).expect("zeros on the CPU")
    }

    fn on(device: &Device, stream: Arc<Stream>, precision: Precision) -> Result<Self> {
        Ok(Self {
            device: device.clone(),
            dtype: dtype(precision),
            stream,
            counters: Tensor::zeros(COUNTERS, DType::U32, device)?,
            one_row_in_f32: false,
            graphs: true,
            kept: KeptWeights::default(),
        })
    }

    /// Sets whether products of packed weights with one row of f16 or bf16 run on the f32 units
    /// instead of the tensor cores. Both multiply exact weights and add in f32, in different
    /// orders. The tensor cores need fewer instructions. It applies to weights that are loaded
    /// afterwards.
    #[must_use]
    pub fn one_row_in_f32(mut self, yes: bool) -> Self {
        self.one_row_in_f32 = yes;
        self
    }

    /// Sets whether greedy decoding repeats a recorded step as a CUDA graph; otherwise the host
    /// launches every kernel of every step. The results have the same bits.
    #[must_use]
    pub fn graphs(mut self, yes: bool) -> Self {
        self.graphs = yes;
        self
    }

    /// Sets whether the dequantised weights that many rows need stay in the memory of the GPU, 2
    /// bytes per weight for f16 and bf16. `None`, the default, decides at their first use: they
    /// stay if all of them fit into half of the free memory. It applies to weights that are loaded
    /// afterwards.
    #[must_use]
    pub fn keep_dequantised(mut self, keep: Option<bool>) -> Self {
        self.kept = KeptWeights::new(keep);
        self
    }

    /// The first `count` counters; `None` if there are fewer.
    pub(super) fn counters(&self, count: usize) -> Result<Option<Tensor>> {
        Ok(match count <= COUNTERS {
            true => Some(self.counters.narrow(0, 0, count)?),
            false => None,
        })
    }

    /// A tensor for a call that writes all elements.
    pub(super) fn unwritten(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        self.stream.unwritten(shape, dtype, &self.device)
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
