//! Launch parameters of a kernel: blocks, threads and arguments.

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
    /// One block of `threads` per row.
    pub(super) fn rows(rows: usize, threads: usize) -> Self {
        Self { grid: (rows, 1), threads, shared: 0 }
    }

    /// One thread per four columns of a row.
    pub(super) fn fours(rows: usize, width: usize) -> Self {
        let fours = width.div_ceil(4);
        let threads = fours.next_multiple_of(32).clamp(32, 256);
        Self { grid: (rows, fours.div_ceil(threads)), threads, shared: 0 }
    }
}

/// An argument of a kernel. Tensors are contiguous and passed by address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    /// Read only.
    In(&'a Tensor),
    /// Written completely, and not read before.
    Out(&'a Tensor),
    /// Modified in place.
    InOut(&'a Tensor),
    /// Read only, with addresses of tensors that are modified in place.
    Table(&'a Tensor, &'a [Tensor]),
    Null,
    U32(usize),
    F32(f32),
}

impl<'a> Arg<'a> {
    pub(super) fn optional(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::Null, Self::In)
    }
}

/// Whether the launch is not empty. Returns an error for arguments that no kernel accepts.
pub(super) fn check(kernel: Kernel, launch: Launch, args: &[Arg]) -> Result<bool> {
    if launch.grid.0 == 0 || launch.grid.1 == 0 {
        return Ok(false);
    }
    let strided = || Err(Error::Input(format!("{kernel:?}: a tensor is not contiguous")));
    for arg in args {
        match arg {
            Arg::In(t) | Arg::Out(t) | Arg::InOut(t) if !t.is_contiguous() => return strided(),
            Arg::Table(t, rows) if !(t.is_contiguous() && all_contiguous(rows)) => {
                return strided();
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

fn all_contiguous(tensors: &[Tensor]) -> bool {
    tensors.iter().all(Tensor::is_contiguous)
}

/// Returns an error for a tensor that is not f32.
pub(super) fn expect_f32(what: &str, tensor: Option<&Tensor>) -> Result<()> {
    match tensor.map(Tensor::dtype) {
        None | Some(DType::F32) => Ok(()),
        Some(other) => Err(Error::Input(format!("{what} is {other:?}, expected F32"))),
    }
}

/// A tensor for a kernel that writes all elements.
pub(super) fn unwritten(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    // SAFETY: only used as `Arg::Out`; tests fill it with NaN first.
    Ok(unsafe { Tensor::empty(shape, dtype, device)? })
}
