//! What launches the kernels.

use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch};
use crate::error::Result;
use candle_core::{DType, Tensor};
use std::fmt::Debug;

/// A device whose kernels can be launched.
pub(super) trait Driver: Debug + Send + Sync {
    /// Loads a file of kernels, once.
    fn load(&self, source: Source) -> Result<()>;

    /// Queues a kernel of activations of `dtype`; nothing where the launch is empty.
    fn launch(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()>;

    /// Address of a tensor's first element; it stays for as long as the tensor.
    fn address(&self, tensor: &Tensor) -> Result<u64>;

    /// `x w` in f32 of `x: (rows, k)` and `w: (k, n)` in f16 or bf16, `w` contiguous or
    /// the transpose of what is.
    fn product_f32(&self, x: &Tensor, w: &Tensor) -> Result<Tensor>;
}
