//! Ranks that work on one job together.
//!
//! A job is run by one or more *ranks*, each with its own memory. They run the
//! same program and meet in collective calls: [`Communicator`] has the few that
//! data-parallel training needs. [`Alone`] is the plain case of one rank,
//! [`in_process`] gives ranks that are threads of one process, and with the
//! feature `mpi`, `Mpi` gives those that a launcher such as `mpirun` started.
//! With the feature `nccl`, `Nccl` adds up what lies on the ranks' GPUs without
//! the way through their hosts.
//!
//! Every rank must make the same collective calls in the same order. One that
//! cannot go on has to end the others with [`Communicator::abort`]; else they
//! would wait for it.
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

/// One rank's view of all ranks of a job.
pub trait Communicator: Debug + Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are, at least 1.
    fn size(&self) -> usize;

    /// Adds up `values` over all ranks, element by element; every rank gets the
    /// same bits. All must give as many.
    ///
    /// # Errors
    /// Another rank has gone or gave another number of values.
    fn all_reduce(&self, values: &mut [f64]) -> Result<()>;

    /// [`all_reduce`](Self::all_reduce) of a tensor of any shape, f32 or f64. Unless the
    /// ranks have a shorter way between their devices, it goes through the host's memory,
    /// as f64.
    ///
    /// # Errors
    /// As there, or the tensor is of another type or cannot be copied.
    #[cfg(feature = "tensor")]
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        let dtype = tensor.dtype();
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(candle_core::Error::Msg(format!("{dtype:?} is not added up")).into());
        }
        let mut values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        self.all_reduce(&mut values)?;
        let sum: Tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
        Ok(sum.to_dtype(dtype)?.to_device(tensor.device())?)
    }

    /// Every rank's bytes, by rank.
    ///
    /// # Errors
    /// Another rank has gone.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Returns once all ranks have called it.
    ///
    /// # Errors
    /// Another rank has gone.
    fn barrier(&self) -> Result<()>;

    /// Ends all ranks, this one too, as soon as the system can.
    fn abort(&self, code: i32) -> !;

    /// Whether this is rank 0, which alone writes files.
    fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// This rank's part of `0..n`: the ranges of all ranks follow each other and
    /// differ by one in length at most.
    fn share(&self, n: usize) -> Range<usize> {
        let (each, more) = (n / self.size(), n % self.size());
        let start = |rank: usize| rank * each + rank.min(more);
        start(self.rank())..start(self.rank() + 1)
    }

    /// Every rank's values, by rank.
    ///
    /// # Errors
    /// Another rank has gone.
    fn all_gather_f32(&self, values: &[f32]) -> Result<Vec<Vec<f32>>> {
        let own: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let value = |b: &[u8; 4]| f32::from_le_bytes(*b);
        let all = self.all_gather(&own)?;
        Ok(all.iter().map(|bytes| bytes.as_chunks().0.iter().map(value).collect()).collect())
    }

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// Another rank has gone.
    fn any(&self, yes: bool) -> Result<bool> {
        let mut count = [f64::from(u8::from(yes))];
        self.all_reduce(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// What rank 0 says.
    ///
    /// # Errors
    /// Another rank has gone.
    fn root_says(&self, yes: bool) -> Result<bool> {
        self.any(yes && self.is_root())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rank without the others.
    #[derive(Debug)]
    struct Of(usize, usize);

    impl Communicator for Of {
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
                let shares: Vec<Range<usize>> = (0..size).map(|r| Of(r, size).share(n)).collect();
                let joined: Vec<usize> = shares.iter().cloned().flatten().collect();
                assert_eq!(joined, (0..n).collect::<Vec<_>>());
                let lengths = || shares.iter().map(ExactSizeIterator::len);
                assert!(lengths().max().unwrap() - lengths().min().unwrap() <= 1);
            }
        }
    }
}
