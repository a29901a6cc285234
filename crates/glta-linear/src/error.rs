use std::path::{Path, PathBuf};

/// Errors of fitting, saving, loading and using linear item models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration field has an invalid value.
    #[error("{system} setting `{field}`: {problem}")]
    Config {
        /// Name of the model.
        system: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What is wrong and which values are valid.
        problem: String,
    },
    /// A dense item-item matrix would be too large.
    #[error(
        "{items} items are more than `max_items`, which is {limit}: the dense form takes \
         {gigabytes:.1} GB while it is fitted; use the local form, or raise `max_items` if the \
         machine has that much memory"
    )]
    TooManyItems {
        /// Number of items.
        items: usize,
        /// The configured `max_items`.
        limit: usize,
        /// Memory that the fit would need, in GB.
        gigabytes: f64,
    },
    /// The regularised Gram matrix is not positive definite in floating point.
    #[error("the item-item matrix cannot be inverted with an `l2` of {l2}: raise `l2`")]
    NotPositiveDefinite {
        /// The configured L2 regularisation.
        l2: f64,
    },
    /// The user is not in the training data.
    #[error("user {user} is unknown: the model was fitted on {users} users")]
    User {
        /// Id of the requested user.
        user: u32,
        /// Number of users.
        users: usize,
    },
    /// The text vectors do not match the model or the data.
    #[error("text vectors: {0}")]
    TextVectors(String),
    /// The model cannot grow as requested.
    #[error("growing model: {0}")]
    Grow(String),
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is damaged, or does not contain a linear model of this catalogue.
    #[error("{}: {problem}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the content.
        problem: String,
    },
    /// The progress callback cancelled the operation.
    #[error("cancelled")]
    Cancelled,
    /// An error of `glta-data`.
    #[error(transparent)]
    Data(#[from] glta_data::Error),
    /// An error of `glta-linalg`.
    #[error(transparent)]
    Linalg(#[from] glta_linalg::Error),
    /// An error of `glta-metrics`.
    #[error(transparent)]
    Metrics(#[from] glta_metrics::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path, problem: impl ToString) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }
}

impl From<glta_core::Cancelled> for Error {
    fn from(_: glta_core::Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
