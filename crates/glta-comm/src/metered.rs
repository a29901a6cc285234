//! Measures how much the ranks exchange and how long they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "tensor")]
use candle_core::Tensor;

use crate::{Communicator, Result};

/// A communicator that counts and times the collective calls of another communicator.
///
/// ```
/// use std::sync::Arc;
///
/// use glta_comm::{Alone, Communicator, Metered};
///
/// let metered = Metered::new(Arc::new(Alone));
/// metered.barrier()?;
/// println!("{:?}", metered.traffic());
/// # Ok::<(), glta_comm::Error>(())
/// ```
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Communicator>,
    calls: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Number, size and duration of the calls of a [`Metered`] communicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Number of collective calls.
    pub calls: u64,
    /// Number of bytes that this rank contributed.
    pub bytes: u64,
    /// Total duration of the collective calls, including the wait for other ranks.
    pub time: Duration,
}

impl Metered {
    /// Wraps a communicator and counts its calls from now on.
    pub fn new(inner: Arc<dyn Communicator>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { inner, calls: zero(), bytes: zero(), nanoseconds: zero() }
    }

    /// Returns the totals of all calls so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            calls: self.calls.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }

    fn timed<R>(&self, bytes: usize, call: impl FnOnce(&dyn Communicator) -> R) -> R {
        let clock = Instant::now();
        let result = call(&*self.inner);
        let time = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.nanoseconds.fetch_add(time, Ordering::Relaxed);
        result
    }
}

impl Communicator for Metered {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        self.timed(size_of_val(values), |inner| inner.all_reduce(values))
    }

    #[cfg(feature = "tensor")]
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.timed(bytes, |inner| inner.all_reduce_tensor(tensor))
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.timed(bytes.len(), |inner| inner.all_gather(bytes))
    }

    fn barrier(&self) -> Result<()> {
        self.timed(0, |inner| inner.barrier())
    }

    fn abort(&self, code: i32) -> ! {
        self.inner.abort(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Alone;

    #[test]
    fn counts_calls_and_bytes() {
        let comm = Metered::new(Arc::new(Alone));
        comm.all_reduce(&mut [1.0; 5]).unwrap();
        assert_eq!(comm.all_gather(b"abc").unwrap(), [b"abc"]);
        comm.barrier().unwrap();
        let traffic = comm.traffic();
        assert_eq!((traffic.calls, traffic.bytes), (3, 43));
        assert!(comm.is_root() && comm.size() == 1);
    }
}
