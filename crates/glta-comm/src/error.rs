/// Errors of communication between ranks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank ended before a collective call was complete.
    #[error("rank {rank} of {size} ended early; see that rank's own error message")]
    RankGone {
        /// Index of the rank that ended.
        rank: usize,
        /// Number of ranks of the job.
        size: usize,
    },
    /// Another rank passed a different number of values than this rank.
    #[error(
        "rank {rank} sent {got} values, this rank {expected}: start all ranks with the same data and configuration"
    )]
    Mismatch {
        /// Index of the other rank.
        rank: usize,
        /// Number of values on this rank.
        expected: usize,
        /// Number of values on the other rank.
        got: usize,
    },
    /// The MPI library reported an error.
    #[error("MPI: {0}")]
    Mpi(String),
    /// NCCL or its GPU reported an error.
    #[error("NCCL: {0}")]
    Nccl(String),
    /// A tensor operation failed.
    #[cfg(feature = "tensor")]
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`] as the error type.
pub type Result<T> = std::result::Result<T, Error>;
