/// Errors of creating weights and of running kernels.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is invalid. Contains the argument and the reason.
    #[error("{0}")]
    Input(String),
    /// The kernels do not support an option.
    #[error("unsupported {what}; supported: {supported}")]
    Unsupported {
        /// Name of the option, and its value.
        what: String,
        /// The supported values.
        supported: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
