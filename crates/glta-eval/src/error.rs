use std::path::{Path, PathBuf};

use thiserror::Error;

/// The error type of a [`System`](crate::System).
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of running, saving and reading an experiment.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot access {path}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file has invalid content.
    #[error("{path}: {problem}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the content.
        problem: String,
    },
    /// A configuration field has an invalid value.
    #[error("configuration: {field}: {problem}")]
    Config {
        /// Path of the field, such as `run.only`.
        field: &'static str,
        /// What is wrong and which values are valid.
        problem: String,
    },
    /// The folder already contains an experiment, and the caller did not request to resume it.
    #[error("{path} already holds a run; resume it, or choose another folder")]
    Exists {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The folder contains an experiment with different data, models or settings.
    #[error("{path} holds an experiment {difference}; choose another folder")]
    Differs {
        /// Path of the folder.
        path: PathBuf,
        /// The first difference between the two experiments.
        difference: String,
    },
    /// Another process uses the folder.
    #[error("{path} is in use by another process; wait for it or choose another folder")]
    Locked {
        /// Path of the folder.
        path: PathBuf,
    },
    /// A system needs a language model, but the experiment has none.
    #[error("{system} needs a language model, but the experiment has none")]
    NoLanguage {
        /// Name of the system.
        system: String,
    },
    /// A requested system lacks something that it needs, such as texts.
    #[error("{system} cannot be run: {reason}")]
    CannotRun {
        /// Name of the system.
        system: String,
        /// Description of what is missing.
        reason: String,
    },
    /// A system returned an error.
    #[error("{system}, seed {seed}")]
    System {
        /// Name of the system.
        system: String,
        /// The seed that was running.
        seed: u64,
        /// The error of the system.
        source: BoxError,
    },
    /// The progress callback cancelled the experiment. Finished rows are kept, and the experiment
    /// can be resumed.
    #[error("cancelled; the experiment can be resumed")]
    Cancelled,
    /// A plot could not be drawn.
    #[error("plot {path}: {problem}")]
    Plot {
        /// Path of the SVG file.
        path: PathBuf,
        /// The message of the plotting library.
        problem: String,
    },
    /// A setting does not exist or cannot be parsed.
    #[error(transparent)]
    Settings(#[from] glta_core::Error),
    /// An error of `glta-align`.
    #[error(transparent)]
    Align(glta_align::Error),
    /// An error of `glta-baselines`.
    #[error(transparent)]
    Baselines(glta_baselines::Error),
    /// An error of the communication between ranks.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// An error of `glta-data`.
    #[error(transparent)]
    Data(#[from] glta_data::Error),
    /// An error of `glta-graph`.
    #[error(transparent)]
    Graph(glta_graph::Error),
    /// An error of `glta-linear`.
    #[error(transparent)]
    Linear(glta_linear::Error),
    /// An error of `glta-metrics`.
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

    /// Wraps the error of a system. Returns [`Error::Cancelled`] and [`Error::CannotRun`]
    /// unchanged.
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
