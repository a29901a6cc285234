//! The interface that launches kernels.

use std::fmt::Debug;

use candle_core::{DType, Tensor};

use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch, check};
use crate::error::Result;

/// A device whose kernels can be launched.
pub(super) trait Driver: Debug + Send + Sync {
    /// Loads a file of kernels, if it is not loaded.
    fn load(&self, source: Source) -> Result<()>;

    /// Launches a kernel for activations of `dtype`; does nothing if the launch is empty.
    fn launch(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
        if check(kernel, launch, args)? { self.queue(kernel, dtype, launch, args) } else { Ok(()) }
    }

    /// Queues a launch with checked arguments.
    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()>;

    /// Bytes that can still be allocated, if the device has its own memory.
    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Address of a tensor's first element, valid as long as the tensor.
    fn address(&self, tensor: &Tensor) -> Result<u64>;

    /// Returns `x w` in f32 for `x: (rows, k)` and `w: (k, n)` in f16 or bf16. `w` is contiguous or
    /// the transpose of a contiguous tensor.
    fn product_f32(&self, x: &Tensor, w: &Tensor) -> Result<Tensor>;
}
