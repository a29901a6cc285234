/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument that does not fit.
    #[error("{0}")]
    Input(String),
    /// Something that the kernels do not do.
    #[error("unsupported {what}; supported: {supported}")]
    Unsupported {
        /// The option and its value.
        what: String,
        /// What is accepted in its place.
        supported: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
