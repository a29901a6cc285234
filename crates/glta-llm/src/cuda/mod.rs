//! The model's operations on an NVIDIA GPU.
//!
//! Everything here is plain Rust over tensors: it allocates results, computes
//! launch parameters and calls [`driver`] to launch the kernels of `kernels/*.cu`.
//! There are three drivers with the same functions: CUDA with the feature `cuda`,
//! one that refuses without it, and in this crate's own tests one that runs the
//! kernels on the host. Code above therefore needs no `cfg`.
//!
//! What layers multiply has the dtype of [`Accelerator`]; sums are f32, and so is the
//! stream of states that layers add to, and its gradient.

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod keys;
mod linear;
#[cfg(test)]
mod model_tests;
mod quantized;
#[cfg(test)]
mod tests;
mod tokens;

#[cfg(test)]
#[path = "emulated.rs"]
mod driver;
#[cfg(all(feature = "cuda", not(test)))]
mod driver;
#[cfg(not(any(feature = "cuda", test)))]
#[path = "absent.rs"]
mod driver;

pub(crate) use linear::{Linear, table};
pub(crate) use tokens::Tokens;

use crate::error::{Error, Result};
use crate::model::Precision;
use candle_core::{DType, Device, Shape, Tensor};

/// A GPU that a model runs on, and the dtype of its activations.
#[derive(Clone, Debug)]
pub(crate) struct Accelerator {
    pub(crate) device: Device,
    pub(crate) dtype: DType,
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
        driver::prepare(device)?;
        Ok(Some(Self { device: device.clone(), dtype: dtype(precision) }))
    }

    /// The host in the place of a GPU: its driver runs the kernels there.
    #[cfg(test)]
    pub(crate) fn emulated(precision: Precision) -> Self {
        Self { device: Device::Cpu, dtype: dtype(precision) }
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

/// The file that a kernel is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Elementwise,
    Attention,
    /// On the matrix units.
    AttentionMma,
    /// For weights of so many bits.
    Quantized(u32),
}

/// Blocks in x and y, threads of a block, and bytes of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Launch {
    grid: (usize, usize),
    threads: usize,
    shared: usize,
}

impl Launch {
    /// A block of `threads` for each of `rows`.
    fn rows(rows: usize, threads: usize) -> Self {
        Self { grid: (rows, 1), threads, shared: 0 }
    }

    /// A thread for each of `elements`.
    fn elements(elements: usize) -> Self {
        Self { grid: (elements.div_ceil(256), 1), threads: 256, shared: 0 }
    }
}

/// An argument of a kernel. Tensors are contiguous; their elements are passed by
/// address.
#[derive(Clone, Copy, Debug)]
enum Arg<'a> {
    /// Only read.
    In(&'a Tensor),
    /// Every element is written, and none is read before.
    Out(&'a Tensor),
    /// Changed in place.
    InOut(&'a Tensor),
    Null,
    U32(usize),
    F32(f32),
}

impl<'a> Arg<'a> {
    fn optional(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::Null, Self::In)
    }
}

/// Launches the kernel `name` of the dtype of activations, on the device of the
/// first tensor.
fn launch(source: Source, name: &str, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
    let name = &format!("{name}_{}", suffix(dtype)?);
    if launch.grid.0 == 0 || launch.grid.1 == 0 {
        return Ok(());
    }
    for arg in args {
        match arg {
            Arg::In(t) | Arg::Out(t) | Arg::InOut(t) if !t.is_contiguous() => {
                return Err(Error::Input(format!("{name}: a tensor is not contiguous")));
            }
            Arg::U32(v) if u32::try_from(*v).is_err() => {
                return Err(Error::Input(format!("{name}: {v} is too large for a kernel")));
            }
            Arg::F32(v) if !v.is_finite() => {
                return Err(Error::Input(format!("{name}: a scalar is {v}")));
            }
            _ => {}
        }
    }
    driver::launch(source, name, launch, args)
}

/// How kernels are called for this dtype.
fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => Err(Error::Input(format!("{other:?} is not a dtype of activations"))),
    }
}

/// Refuses what a kernel would read as f32 though it is not.
fn expect_f32(what: &str, tensor: Option<&Tensor>) -> Result<()> {
    match tensor.map(Tensor::dtype) {
        None | Some(DType::F32) => Ok(()),
        Some(other) => Err(Error::Input(format!("{what} is {other:?}, expected F32"))),
    }
}

/// A tensor whose elements a kernel is about to write, all of them.
fn unwritten(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: handed to kernels as `Arg::Out` only; tests fill it with NaN first.
    Ok(unsafe { Tensor::empty(shape, dtype, device)? })
}
