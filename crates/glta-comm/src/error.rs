/// What can go wrong between ranks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rank ended before the others.
    #[error("rank {rank} of {size} has ended early; its own message says why")]
    RankGone {
        /// Which one.
        rank: usize,
        /// How many there were.
        size: usize,
    },
    /// The ranks do not do the same.
    #[error(
        "rank {rank} brought {got} values where this rank has {expected}: all ranks need the same data and configuration"
    )]
    Mismatch {
        /// The rank that differs.
        rank: usize,
        /// What this rank has.
        expected: usize,
        /// What the other has.
        got: usize,
    },
    /// The MPI library cannot be used.
    #[error("MPI: {0}")]
    Mpi(String),
    /// The NCCL library or its GPU cannot be used.
    #[error("NCCL: {0}")]
    Nccl(String),
    /// A tensor operation failed.
    #[cfg(feature = "tensor")]
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
