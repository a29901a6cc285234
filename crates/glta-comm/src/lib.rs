//! Ranks that train one model together.
//!
//! A job has one or more *ranks*, each with its own memory. All ranks run the same program and
//! exchange data in collective calls. [`Communicator`] defines the calls that data-parallel
//! training needs. There are four implementations:
//! - [`Alone`]: a single rank.
//! - [`in_process`]: threads of one process.
//! - `Mpi` (feature `mpi`): processes that a launcher such as `mpirun` starts.
//! - `Nccl` (feature `nccl`): sums tensors directly between the GPUs of the ranks.
//!
//! Every rank must make the same collective calls in the same order. A rank that fails must end the
//! others with [`Communicator::abort`]; otherwise they wait forever.
//!
//! ```
//! use glta_comm::{Communicator, in_process};
//!
//! let threads: Vec<_> = in_process(3)
//!     .into_iter()
//!     .map(|comm| {
//!         std::thread::spawn(move || {
//!             let mut values = [comm.rank() as f64, 1.0];
//!             comm.all_reduce(&mut values)?;
//!             Ok::<_, glta_comm::Error>((values, comm.share(10)))
//!         })
//!     })
//!     .collect();
//! for (thread, share) in threads.into_iter().zip([0..4, 4..7, 7..10]) {
//!     assert_eq!(thread.join().unwrap()?, ([3.0, 3.0], share));
//! }
//! # Ok::<(), glta_comm::Error>(())
//! ```

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod alone;
mod error;
mod in_process;
mod metered;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;

use std::fmt::Debug;
use std::ops::Range;

#[cfg(feature = "tensor")]
use candle_core::{DType, Device, Tensor};

pub use alone::Alone;
pub use error::{Error, Result};
pub use in_process::{InProcess, in_process};
pub use metered::{Metered, Traffic};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;

/// One rank of a job, with its connection to the other ranks.
pub trait Communicator: Debug + Send + Sync {
    /// Returns the index of this rank, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks, at least 1.
    fn size(&self) -> usize;

    /// Sums `values` over all ranks, element by element, in place. The sums are bit-identical on
    /// all ranks. All ranks must pass the same number of values.
    ///
    /// # Errors
    /// Returns an error if another rank has ended or passed a different number of values.
    fn all_reduce(&self, values: &mut [f64]) -> Result<()>;

    /// Sums an f32 or f64 tensor of any shape over all ranks, like
    /// [`all_reduce`](Self::all_reduce). Unless the implementation connects the devices directly,
    /// the values go through host memory as f64.
    ///
    /// # Errors
    /// Returns the errors of [`all_reduce`](Self::all_reduce), and an error if the tensor has a
    /// different type or cannot be copied.
    #[cfg(feature = "tensor")]
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        let dtype = tensor.dtype();
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(candle_core::Error::Msg(format!(
                "all_reduce takes f32 or f64, not {dtype:?}"
            ))
            .into());
        }
        let mut values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        self.all_reduce(&mut values)?;
        let sum: Tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
        Ok(sum.to_dtype(dtype)?.to_device(tensor.device())?)
    }

    /// Returns the bytes of every rank, in the order of the ranks.
    ///
    /// # Errors
    /// Returns an error if another rank has ended.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Waits until all ranks have made this call.
    ///
    /// # Errors
    /// Returns an error if another rank has ended.
    fn barrier(&self) -> Result<()>;

    /// Ends all ranks, including this one, as soon as possible. `code` is the exit status of the
    /// process.
    fn abort(&self, code: i32) -> !;

    /// Returns whether this is rank 0, the only rank that writes files.
    fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Returns the part of `0..n` that this rank processes. The ranges of all ranks are
    /// consecutive, and their lengths differ by at most one.
    fn share(&self, n: usize) -> Range<usize> {
        let (each, more) = (n / self.size(), n % self.size());
        let start = |rank: usize| rank * each + rank.min(more);
        start(self.rank())..start(self.rank() + 1)
    }

    /// Returns the `f32` values of every rank, in the order of the ranks.
    ///
    /// # Errors
    /// Returns an error if another rank has ended.
    fn all_gather_f32(&self, values: &[f32]) -> Result<Vec<Vec<f32>>> {
        let own: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let value = |b: &[u8; 4]| f32::from_le_bytes(*b);
        let all = self.all_gather(&own)?;
        Ok(all.iter().map(|bytes| bytes.as_chunks().0.iter().map(value).collect()).collect())
    }

    /// Returns whether `yes` is true on at least one rank.
    ///
    /// # Errors
    /// Returns an error if another rank has ended.
    fn any(&self, yes: bool) -> Result<bool> {
        let mut count = [f64::from(u8::from(yes))];
        self.all_reduce(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// Returns the value of `yes` on rank 0.
    ///
    /// # Errors
    /// Returns an error if another rank has ended.
    fn root_says(&self, yes: bool) -> Result<bool> {
        self.any(yes && self.is_root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A communicator with a fixed rank and number of ranks.
    #[derive(Debug)]
    struct Fixed(usize, usize);

    impl Communicator for Fixed {
        fn rank(&self) -> usize {
            self.0
        }
        fn size(&self) -> usize {
            self.1
        }
        fn all_reduce(&self, _: &mut [f64]) -> Result<()> {
            Ok(())
        }
        fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
            Ok(vec![bytes.to_vec()])
        }
        fn barrier(&self) -> Result<()> {
            Ok(())
        }
        fn abort(&self, code: i32) -> ! {
            std::process::exit(code)
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        for size in 1..7 {
            for n in 0..20 {
                let shares: Vec<Range<usize>> =
                    (0..size).map(|r| Fixed(r, size).share(n)).collect();
                let joined: Vec<usize> = shares.iter().cloned().flatten().collect();
                assert_eq!(joined, (0..n).collect::<Vec<_>>());
                let lengths = || shares.iter().map(ExactSizeIterator::len);
                assert!(lengths().max().unwrap() - lengths().min().unwrap() <= 1);
            }
        }
    }
}
