//! Ranks that are threads of one process: for tests, and for machines with
//! several memory domains.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Communicator, Error, Result};

/// One of the ranks that [`in_process`] made; goes into its own thread.
#[derive(Debug)]
pub struct InProcess {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// As many ranks as asked for (at least one), each for one thread.
pub fn in_process(size: usize) -> Vec<InProcess> {
    let size = size.max(1);
    let state = State { brought: vec![None; size], left: 0, gone: None };
    let meeting = Arc::new(Meeting { size, state: Mutex::new(state), changed: Condvar::new() });
    (0..size).map(|rank| InProcess { rank, meeting: Arc::clone(&meeting) }).collect()
}

#[derive(Debug)]
struct Meeting {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What each rank brought to the meeting under way.
    brought: Vec<Option<Arc<[u8]>>>,
    /// How many have taken everything with them.
    left: usize,
    /// A rank that has ended.
    gone: Option<usize>,
}

impl InProcess {
    fn state(&self) -> MutexGuard<'_, State> {
        self.meeting.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready`, or fails if a rank has gone that it would wait for.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>> {
        while !ready(&state) {
            if let Some(rank) = state.gone {
                return Err(Error::RankGone { rank, size: self.meeting.size });
            }
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state)
    }

    /// Everyone's bytes, by rank.
    fn meet(&self, bytes: &[u8]) -> Result<Vec<Arc<[u8]>>> {
        // The last meeting must be over: this rank's place is empty again.
        let mut state = self.wait(self.state(), |s| s.brought[self.rank].is_none())?;
        state.brought[self.rank] = Some(bytes.into());
        self.meeting.changed.notify_all();
        let mut state = self.wait(state, |s| s.brought.iter().all(Option::is_some))?;
        let all = state.brought.iter().flatten().cloned().collect();
        state.left += 1;
        if state.left == self.meeting.size {
            state.left = 0;
            state.brought.fill(None);
            self.meeting.changed.notify_all();
        }
        Ok(all)
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.state().gone.get_or_insert(self.rank);
        self.meeting.changed.notify_all();
    }
}

impl Communicator for InProcess {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.size
    }

    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let all = self.meet(&bytes)?;
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
        Ok(self.meet(bytes)?.iter().map(|b| b.to_vec()).collect())
    }

    fn barrier(&self) -> Result<()> {
        self.meet(&[]).map(drop)
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_meetings_in_a_row() {
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
                    // None leaves before the others' last meeting is over.
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
                    // Not laid out in its own order.
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
    fn other_numbers_of_values_are_an_error() {
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
