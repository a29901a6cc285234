//! The interface that makes the calls of a device.

use std::fmt::Debug;

use candle_core::{DType, Tensor};

use super::call::Call;
use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch};
use crate::error::Result;

/// A device whose kernels can be launched.
pub(super) trait Driver: Debug + Send + Sync {
    /// Loads a file of kernels, if it is not loaded.
    fn load(&self, source: Source) -> Result<()>;

    /// Queues a launch that is not empty, with checked arguments.
    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()>;

    /// Queues the product `x w`, with checked shapes, into the columns from `first` on of `y`.
    fn multiply(&self, x: &Tensor, w: &Tensor, y: &Tensor, first: usize) -> Result<()>;

    /// Bytes that can still be allocated, if the device has its own memory.
    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Address of a tensor's first element, valid as long as the tensor.
    fn address(&self, tensor: &Tensor) -> Result<u64>;

    /// Prepares recorded calls for repetition. Returns `None` if the device has no graphs.
    fn graph(&self, _calls: &[Call]) -> Result<Option<Box<dyn Graph>>> {
        Ok(None)
    }
}

/// Recorded calls that a device repeats.
pub(super) trait Graph: Debug + Send + Sync {
    /// Queues the calls. `rows` are the tensors whose addresses are now in the tables.
    fn launch(&self, rows: &[Tensor]) -> Result<()>;
}
