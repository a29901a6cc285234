use thiserror::Error;

/// What can go wrong in this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A grid of settings does not fit the configuration.
    #[error("setting `{field}`: {problem}")]
    Grid {
        /// Dotted name of the field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
