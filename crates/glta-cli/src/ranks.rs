//! Connects the ranks of a run. With the feature `mpi`, they are the processes of a launcher such
//! as `mpirun`. Otherwise, this process is the only rank.

use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use glta_comm::{Communicator, Metered};

use crate::Result;

/// A communicator that counts its messages.
pub type Ranks = Arc<Metered>;

#[cfg(feature = "mpi")]
fn all() -> Result<Arc<dyn Communicator>> {
    Ok(Arc::new(glta_comm::Mpi::start()?))
}

#[cfg(not(feature = "mpi"))]
fn all() -> Result<Arc<dyn Communicator>> {
    if let Ok(size) = std::env::var("OMPI_COMM_WORLD_SIZE").or(std::env::var("PMI_SIZE"))
        && size != "1"
    {
        // Without MPI, each process would run the whole job.
        return Err(format!(
            "{size} ranks were started, but this program was built without the feature `mpi`"
        )
        .into());
    }
    Ok(Arc::new(glta_comm::Alone))
}

/// Joins the other ranks.
///
/// # Errors
/// Returns an error if MPI does not start, or if a launcher started several ranks and this program
/// was built without the feature `mpi`.
pub fn start() -> Result<Ranks> {
    Ok(Arc::new(Metered::new(all()?)))
}

/// Returns the communicator of a run on `device`. With the feature `nccl`, GPUs sum gradients
/// directly, and these messages are not counted.
///
/// # Errors
/// Returns an error if NCCL does not start.
#[cfg_attr(not(feature = "nccl"), allow(unused_variables))]
pub fn between(ranks: &Ranks, device: &Device) -> Result<Arc<dyn Communicator>> {
    #[cfg(feature = "nccl")]
    if device.is_cuda() && ranks.size() > 1 {
        return Ok(Arc::new(glta_comm::Nccl::new(Arc::<Metered>::clone(ranks), device)?));
    }
    Ok(Arc::<Metered>::clone(ranks))
}

/// Returns the index of this rank on its machine, which the launcher sets.
pub fn place() -> usize {
    ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok())
        .unwrap_or(0)
}

/// Runs `work` on rank 0 first, so that the other ranks find its downloads.
///
/// # Errors
/// Returns the errors of `work`, and an error if another rank fails.
pub fn root_first<R>(ranks: &Ranks, work: impl FnOnce() -> Result<R>) -> Result<R> {
    if !ranks.is_root() {
        ranks.barrier()?;
        return work();
    }
    let result = work()?;
    ranks.barrier()?;
    Ok(result)
}

/// Runs `work` on rank 0, while the others wait.
///
/// # Errors
/// Returns the errors of `work`, and an error if another rank fails.
pub fn on_root(ranks: &Ranks, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if ranks.is_root() {
        work()?;
    }
    Ok(ranks.barrier()?)
}

/// Describes the messages of rank 0 since `start`: their number, size and time. Returns `None` for
/// a single rank.
pub fn traffic(ranks: &Ranks, start: Instant) -> Option<String> {
    let traffic = ranks.traffic();
    (ranks.size() > 1 && ranks.is_root()).then(|| {
        let (waited, all) = (traffic.time.as_secs_f64(), start.elapsed().as_secs_f64());
        format!(
            "{} ranks; rank 0 was {waited:.1} s of {all:.1} s ({:.1} %) in {} collective calls, with {:.1} MB",
            ranks.size(),
            100.0 * waited / all,
            traffic.calls,
            traffic.bytes as f64 / 1e6
        )
    })
}
