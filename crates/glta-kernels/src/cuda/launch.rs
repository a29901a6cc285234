//! How a kernel is launched: blocks, threads and arguments.

use candle_core::{DType, Device, Shape, Tensor};

use super::kernels::Kernel;
use crate::error::{Error, Result};

/// Blocks in x and y, threads of a block, and bytes of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) grid: (usize, usize),
    pub(super) threads: usize,
    pub(super) shared: usize,
}

impl Launch {
    /// A block of `threads` for each of `rows`.
    pub(super) fn rows(rows: usize, threads: usize) -> Self {
        Self { grid: (rows, 1), threads, shared: 0 }
    }

    /// A thread for each of `elements`.
    pub(super) fn elements(elements: usize) -> Self {
        Self { grid: (elements.div_ceil(256), 1), threads: 256, shared: 0 }
    }
}

/// An argument of a kernel. Tensors are contiguous; their elements are passed by
/// address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
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
    pub(super) fn optional(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::Null, Self::In)
    }
}

/// Whether there is anything to launch; refuses arguments that no kernel takes.
pub(super) fn check(kernel: Kernel, launch: Launch, args: &[Arg]) -> Result<bool> {
    if launch.grid.0 == 0 || launch.grid.1 == 0 {
        return Ok(false);
    }
    for arg in args {
        match arg {
            Arg::In(t) | Arg::Out(t) | Arg::InOut(t) if !t.is_contiguous() => {
                return Err(Error::Input(format!("{kernel:?}: a tensor is not contiguous")));
            }
            Arg::U32(v) if u32::try_from(*v).is_err() => {
                return Err(Error::Input(format!("{kernel:?}: {v} is too large for a kernel")));
            }
            Arg::F32(v) if !v.is_finite() => {
                return Err(Error::Input(format!("{kernel:?}: a scalar is {v}")));
            }
            _ => {}
        }
    }
    Ok(true)
}

/// Refuses what a kernel would read as f32 though it is not.
pub(super) fn expect_f32(what: &str, tensor: Option<&Tensor>) -> Result<()> {
    match tensor.map(Tensor::dtype) {
        None | Some(DType::F32) => Ok(()),
        Some(other) => Err(Error::Input(format!("{what} is {other:?}, expected F32"))),
    }
}

/// A tensor whose elements a kernel is about to write, all of them.
pub(super) fn unwritten(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: handed to kernels as `Arg::Out` only; tests fill it with NaN first.
    Ok(unsafe { Tensor::empty(shape, dtype, device)? })
}
