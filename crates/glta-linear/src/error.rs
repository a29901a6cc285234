use std::path::{Path, PathBuf};

/// What can go wrong while a linear item model is fitted, saved, loaded or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration field has a value that cannot work.
    #[error("{system} setting `{field}`: {problem}")]
    Config {
        /// Name of the model.
        system: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
    /// A dense item-item matrix would not fit.
    #[error(
        "{items} items are more than `max_items` allows, which is {limit}: the dense form takes \
         {gigabytes:.1} GB while it is fitted; use the local form, or raise `max_items` if that \
         much memory is there"
    )]
    TooManyItems {
        /// Number of items.
        items: usize,
        /// The configured `max_items`.
        limit: usize,
        /// Memory while fitting.
        gigabytes: f64,
    },
    /// The regularised Gram matrix is not positive definite in floating point.
    #[error("the item-item matrix cannot be inverted at an `l2` of {l2}: raise `l2`")]
    NotPositiveDefinite {
        /// The configured regularisation.
        l2: f64,
    },
    /// A user that the model was not fitted on.
    #[error("user {user} is unknown: the model was fitted on {users} users")]
    User {
        /// The user asked for.
        user: u32,
        /// Number of users.
        users: usize,
    },
    /// Text vectors that do not fit.
    #[error("text vectors: {0}")]
    TextVectors(String),
    /// A model that cannot grow as it was asked to.
    #[error("a growing model: {0}")]
    Grow(String),
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold a linear model of these items.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The receiver of the progress asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// From the data crate.
    #[error(transparent)]
    Data(#[from] glta_data::Error),
    /// From the linear algebra.
    #[error(transparent)]
    Linalg(#[from] glta_linalg::Error),
    /// From the metrics.
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
