//! Ranks that are processes of an MPI job.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives as _};

use crate::{Communicator, Error, Result};

/// Maximum number of elements of one MPI call. MPI counts with signed 32-bit integers, so longer
/// lists are sent in pieces.
const PIECE: usize = 1 << 28;

/// The communicator of all ranks of an MPI job (`MPI_COMM_WORLD`). Without a launcher, the job has
/// one rank.
///
/// If a collective call fails, MPI ends all ranks. If a rank dies, the launcher ends the other
/// ranks. Dropping this value waits until the other ranks drop theirs.
pub struct Mpi {
    rank: usize,
    size: usize,
    /// The mutex ensures that only one thread at a time calls the MPI library.
    world: Mutex<World>,
}

struct World {
    world: SimpleCommunicator,
    // Fields are dropped in order, and dropping the universe shuts the library down.
    _universe: Universe,
}

// SAFETY: the library was initialised with at least `Threading::Serialized`, so any thread may call
// it if calls do not overlap; the mutex ensures this.
unsafe impl Send for World {}

impl Mpi {
    /// Initialises MPI. This is possible only once per process.
    ///
    /// # Errors
    /// Returns an error if MPI was already initialised or does not support threads.
    pub fn start() -> Result<Self> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| Error::Mpi("the library was started before in this process".into()))?;
        if threading < Threading::Serialized {
            return Err(Error::Mpi(
                "the library was built without thread support (MPI_THREAD_SERIALIZED)".into(),
            ));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        Ok(Self { rank, size, world: Mutex::new(World { world, _universe: universe }) })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("size", &self.size).finish()
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        let world = self.world();
        for piece in values.chunks_mut(PIECE) {
            let own = piece.to_vec();
            world.world.all_reduce_into(&own[..], piece, SystemOperation::sum());
        }
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let world = self.world();
        let mut lengths = vec![0u64; self.size];
        world.world.all_gather_into(&(bytes.len() as u64), &mut lengths[..]);
        let mut all: Vec<Vec<u8>> =
            lengths.iter().map(|&n| Vec::with_capacity(n as usize)).collect();
        // The longest list determines the number of rounds of the gather.
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let piece = (PIECE / self.size).max(1);
        for start in (0..longest).step_by(piece) {
            let part = |n: usize| n.clamp(start, start + piece) - start;
            let counts: Vec<i32> = lengths.iter().map(|&n| part(n as usize) as i32).collect();
            let displacements: Vec<i32> = counts
                .iter()
                .scan(0, |at, &count| {
                    let here = *at;
                    *at += count;
                    Some(here)
                })
                .collect();
            let mut joined = vec![0u8; counts.iter().map(|&c| c as usize).sum()];
            let own = start.min(bytes.len());
            let own = &bytes[own..own + part(bytes.len())];
            let mut parts = PartitionMut::new(&mut joined[..], &counts[..], &displacements[..]);
            world.world.all_gather_varcount_into(own, &mut parts);
            for ((out, &count), &at) in all.iter_mut().zip(&counts).zip(&displacements) {
                out.extend_from_slice(&joined[at as usize..(at + count) as usize]);
            }
        }
        Ok(all)
    }

    fn barrier(&self) -> Result<()> {
        self.world().world.barrier();
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        // Another thread may be in a call that never returns. If this process exits without
        // finalising MPI, the launcher ends the other ranks.
        match self.world.try_lock() {
            Ok(world) => world.world.abort(code),
            Err(_) => std::process::exit(code),
        }
    }
}
