//! What launches the kernels.

use std::fmt::Debug;

use candle_core::{DType, Tensor};

use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch, check};
use crate::error::Result;

/// A device whose kernels can be launched.
pub(super) trait Driver: Debug + Send + Sync {
    /// Loads a file of kernels, once.
    fn load(&self, source: Source) -> Result<()>;

    /// Launches a kernel of activations of `dtype`, unless there is nothing to do.
    fn launch(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
        if check(kernel, launch, args)? { self.queue(kernel, dtype, launch, args) } else { Ok(()) }
    }

    /// Queues a launch that was checked.
    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()>;

    /// Address of a tensor's first element; it stays for as long as the tensor.
    fn address(&self, tensor: &Tensor) -> Result<u64>;

    /// `x w` in f32 of `x: (rows, k)` and `w: (k, n)` in f16 or bf16, `w` contiguous or
    /// the transpose of what is.
    fn product_f32(&self, x: &Tensor, w: &Tensor) -> Result<Tensor>;
}
