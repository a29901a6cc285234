//! Ranks that are threads of one process, for tests and for machines with several memory domains.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Communicator, Error, Result};

/// The communicator of one rank that [`in_process`] created. Each rank runs in its own thread.
#[derive(Debug)]
pub struct InProcess {
    rank: usize,
    exchange: Arc<Exchange>,
}

/// Creates one communicator for each of `size` ranks. A `size` of 0 counts as 1. Move each
/// communicator to a thread of its own.
///
/// ```
/// use glta_comm::{Communicator, in_process};
///
/// std::thread::scope(|scope| {
///     for comm in in_process(2) {
///         scope.spawn(move || {
///             let all = comm.all_gather(&[comm.rank() as u8]).unwrap();
///             assert_eq!(all, [[0], [1]]);
///         });
///     }
/// });
/// ```
pub fn in_process(size: usize) -> Vec<InProcess> {
    let size = size.max(1);
    let state = State { sent: vec![None; size], collected: 0, ended: None };
    let exchange = Arc::new(Exchange { size, state: Mutex::new(state), changed: Condvar::new() });
    (0..size).map(|rank| InProcess { rank, exchange: Arc::clone(&exchange) }).collect()
}

#[derive(Debug)]
struct Exchange {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Bytes that each rank has sent in the current exchange, by rank. `None` if a rank has not
    /// sent yet.
    sent: Vec<Option<Arc<[u8]>>>,
    /// Number of ranks that have received the bytes of all ranks.
    collected: usize,
    /// Index of the first rank that ended.
    ended: Option<usize>,
}

impl InProcess {
    fn state(&self) -> MutexGuard<'_, State> {
        self.exchange.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` returns true. Returns an error if a rank ends before that.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>> {
        while !ready(&state) {
            if let Some(rank) = state.ended {
                return Err(Error::RankGone { rank, size: self.exchange.size });
            }
            state = self.exchange.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state)
    }

    /// Sends `bytes` to all ranks and returns those of every rank, in the order of the ranks.
    fn exchange(&self, bytes: &[u8]) -> Result<Vec<Arc<[u8]>>> {
        // The previous exchange is over once this rank's entry is empty.
        let mut state = self.wait(self.state(), |s| s.sent[self.rank].is_none())?;
        state.sent[self.rank] = Some(bytes.into());
        self.exchange.changed.notify_all();
        let mut state = self.wait(state, |s| s.sent.iter().all(Option::is_some))?;
        let all = state.sent.iter().flatten().cloned().collect();
        state.collected += 1;
        if state.collected == self.exchange.size {
            state.collected = 0;
            state.sent.fill(None);
            self.exchange.changed.notify_all();
        }
        Ok(all)
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.state().ended.get_or_insert(self.rank);
        self.exchange.changed.notify_all();
    }
}

impl Communicator for InProcess {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.exchange.size
    }

    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let all = self.exchange(&bytes)?;
        if let Some(rank) = all.iter().position(|other| other.len() != bytes.len()) {
            let (expected, got) = (values.len(), all[rank].len() / 8);
            return Err(Error::Mismatch { rank, expected, got });
        }
        values.fill(0.0);
        for other in all {
            for (value, other) in values.iter_mut().zip(other.as_chunks().0) {
                *value += f64::from_le_bytes(*other);
            }
        }
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(self.exchange(bytes)?.iter().map(|b| b.to_vec()).collect())
    }

    fn barrier(&self) -> Result<()> {
        self.exchange(&[]).map(drop)
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_exchanges_in_a_row() {
        let threads: Vec<_> = in_process(4)
            .into_iter()
            .map(|comm| {
                std::thread::spawn(move || {
                    for round in 0..200u32 {
                        let mut values = vec![comm.rank() as f64 + f64::from(round); 3];
                        comm.all_reduce(&mut values).unwrap();
                        assert_eq!(values, [6.0 + 4.0 * f64::from(round); 3]);
                        let own = vec![comm.rank() as u8; comm.rank() + round as usize % 3];
                        let all = comm.all_gather(&own).unwrap();
                        for (rank, bytes) in all.iter().enumerate() {
                            assert_eq!(*bytes, vec![rank as u8; rank + round as usize % 3]);
                        }
                        comm.barrier().unwrap();
                        assert!(comm.any(comm.rank() == 2).unwrap());
                        assert!(!comm.any(false).unwrap());
                        assert!(!comm.root_says(comm.rank() == 2).unwrap());
                        assert!(comm.root_says(comm.rank() == 0).unwrap());
                    }
                    // No rank may end before the others have finished their last exchange.
                    comm.barrier().unwrap();
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[cfg(feature = "tensor")]
    #[test]
    fn tensors_are_added_up_in_their_shape() {
        use candle_core::{DType, Device, Tensor};

        let threads: Vec<_> = in_process(3)
            .into_iter()
            .map(|comm| {
                std::thread::spawn(move || {
                    let own = Tensor::arange(0f64, 6.0, &Device::Cpu).unwrap();
                    // A transposed tensor tests a layout that is not contiguous.
                    let own = own.reshape((2, 3)).unwrap().t().unwrap();
                    let sum = comm.all_reduce_tensor(&own).unwrap();
                    assert_eq!(
                        sum.to_vec2::<f64>().unwrap(),
                        [[0.0, 9.0], [3.0, 12.0], [6.0, 15.0]]
                    );
                    let single = own.to_dtype(DType::F32).unwrap();
                    let sum = comm.all_reduce_tensor(&single).unwrap();
                    assert_eq!(sum.to_vec2::<f32>().unwrap()[2], [6.0, 15.0]);
                    let other = own.to_dtype(DType::U32).unwrap();
                    assert!(comm.all_reduce_tensor(&other).is_err());
                    comm.barrier().unwrap();
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_rank_that_ends_early_is_named() {
        let mut ranks = in_process(3).into_iter();
        let first = ranks.next().unwrap();
        let second = ranks.next().unwrap();
        let waiting = std::thread::spawn(move || first.barrier());
        let also = std::thread::spawn(move || second.all_reduce(&mut [1.0]));
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(ranks);
        for error in [waiting.join().unwrap().unwrap_err(), also.join().unwrap().unwrap_err()] {
            assert!(matches!(error, Error::RankGone { size: 3, .. }), "{error}");
        }
    }

    #[test]
    fn a_different_number_of_values_is_an_error() {
        let threads: Vec<_> = in_process(2)
            .into_iter()
            .map(|comm| std::thread::spawn(move || comm.all_reduce(&mut vec![0.0; comm.rank()])))
            .collect();
        for thread in threads {
            let error = thread.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        }
    }
}
