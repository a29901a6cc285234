use thiserror::Error;

/// What can go wrong while data is read, filtered or split.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A user or item id lies outside the declared range.
    #[error("{kind} id {id} is out of range: there are {len} {kind}s (ids 0..{len})")]
    IdOutOfRange {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The offending id.
        id: u32,
        /// How many ids there are.
        len: usize,
    },
    /// More users or items than a `u32` id can name.
    #[error("{len} {kind}s do not fit into 32-bit ids")]
    TooMany {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The requested count.
        len: usize,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
