use std::path::{Path, PathBuf};

use thiserror::Error;

/// Any error, such as a [`System`](crate::System) of one's own returns.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong in an experiment.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot access {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file has content that cannot be used.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A configuration field with a value that cannot work.
    #[error("configuration: {field}: {problem}")]
    Config {
        /// The field, such as `run.only`.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The folder already holds an experiment, and the caller did not ask to resume it.
    #[error("{path} already holds a run; resume it, or choose another folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds an experiment that differs from this one.
    #[error("{path} was run {difference}; choose another folder")]
    Differs {
        /// The folder.
        path: PathBuf,
        /// What is not the same.
        difference: String,
    },
    /// Another process works in the folder.
    #[error("{path} is in use by another process; wait for it or choose another folder")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A system that reads texts was named, but there is no language model.
    #[error("{system} needs a language model, and the experiment has none")]
    NoLanguage {
        /// The system's name.
        system: String,
    },
    /// A system that reads texts was named, but there is nothing that it could read.
    #[error("{system} cannot be run: {reason}")]
    CannotRun {
        /// The system's name.
        system: String,
        /// What is missing.
        reason: String,
    },
    /// A system failed.
    #[error("{system}, seed {seed}")]
    System {
        /// The system's name.
        system: String,
        /// The seed.
        seed: u64,
        /// Its error.
        source: BoxError,
    },
    /// The progress asked to stop. Finished rows are kept; the experiment can be resumed.
    #[error("cancelled; the experiment can be resumed")]
    Cancelled,
    /// A plot could not be drawn.
    #[error("plot {path}: {problem}")]
    Plot {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// A setting that does not exist or does not parse.
    #[error(transparent)]
    Settings(#[from] glta_core::Error),
    /// From the alignment crate.
    #[error(transparent)]
    Align(glta_align::Error),
    /// From the contrastive baselines.
    #[error(transparent)]
    Baselines(glta_baselines::Error),
    /// From the other ranks.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// From the data crate.
    #[error(transparent)]
    Data(#[from] glta_data::Error),
    /// From the graph crate.
    #[error(transparent)]
    Graph(glta_graph::Error),
    /// From the linear models.
    #[error(transparent)]
    Linear(glta_linear::Error),
    /// From the metrics.
    #[error(transparent)]
    Metrics(#[from] glta_metrics::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path, problem: impl ToString) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }

    /// The error of a system; [`Error::Cancelled`] and [`Error::CannotRun`] as they are.
    pub(crate) fn system(name: &str, seed: u64, source: BoxError) -> Self {
        let own = source.downcast_ref::<Self>();
        if source.is::<glta_core::Cancelled>() || own.is_some_and(|e| matches!(e, Self::Cancelled))
        {
            return Self::Cancelled;
        }
        match source.downcast::<Self>() {
            Ok(own) if matches!(*own, Self::CannotRun { .. }) => *own,
            Ok(own) => Self::System { system: name.to_owned(), seed, source: own },
            Err(source) => Self::System { system: name.to_owned(), seed, source },
        }
    }
}

impl From<glta_core::Cancelled> for Error {
    fn from(_: glta_core::Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<glta_align::Error> for Error {
    fn from(error: glta_align::Error) -> Self {
        match error {
            glta_align::Error::Cancelled => Self::Cancelled,
            other => Self::Align(other),
        }
    }
}

impl From<glta_baselines::Error> for Error {
    fn from(error: glta_baselines::Error) -> Self {
        match error {
            glta_baselines::Error::Cancelled => Self::Cancelled,
            other => Self::Baselines(other),
        }
    }
}

impl From<glta_graph::Error> for Error {
    fn from(error: glta_graph::Error) -> Self {
        match error {
            glta_graph::Error::Cancelled(_) => Self::Cancelled,
            other => Self::Graph(other),
        }
    }
}

impl From<glta_linear::Error> for Error {
    fn from(error: glta_linear::Error) -> Self {
        match error {
            glta_linear::Error::Cancelled => Self::Cancelled,
            other => Self::Linear(other),
        }
    }
}
