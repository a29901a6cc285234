use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::item_encoder::ItemEncoder;

/// Errors of training, saving, loading and using a recommender.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file has content that this version of the library cannot read.
    #[error("{path}: {problem}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Description of the problem and its solution.
        problem: String,
    },
    /// A prompt template is invalid.
    #[error("prompt templates {file}: {problem}")]
    Template {
        /// Path of the file, or name of the built-in template.
        file: String,
        /// Description of the problem.
        problem: String,
    },
    /// A configuration field has an invalid value.
    #[error("configuration: {field}: {problem}")]
    Config {
        /// Path of the field, such as `model.slots`.
        field: String,
        /// Description of the problem and the valid values.
        problem: String,
    },
    /// A text encoder failed.
    #[error("the text encoder failed")]
    Encoder(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A configuration field does not exist, or cannot have the given value.
    #[error(transparent)]
    Settings(#[from] glta_core::Error),
    /// A configuration text cannot be parsed, or a preset does not exist.
    #[error("configuration: {0}")]
    ConfigText(String),
    /// The folder of a new run already contains a run.
    #[error("{path} already holds a run; resume it, or choose another folder")]
    RunExists {
        /// Folder of the existing run.
        path: PathBuf,
    },
    /// The folder of a run to resume contains no run.
    #[error("{path} contains no run to resume; create one, or choose another folder")]
    NoRun {
        /// Folder without a run.
        path: PathBuf,
    },
    /// Another process uses the folder of the run.
    #[error("{path} is in use by another process; wait for it or choose another folder")]
    RunLocked {
        /// Folder of the run.
        path: PathBuf,
    },
    /// The data are inconsistent.
    #[error("training data: {0}")]
    Data(String),
    /// The recommender has no user with the requested id.
    #[error("user {user} is unknown: this recommender has users 0..{users}")]
    UnknownUser {
        /// Id that was requested.
        user: u32,
        /// Number of users.
        users: usize,
    },
    /// The recommender has no item with the requested id.
    #[error("item {item} is unknown: this recommender has items 0..{items}")]
    UnknownItem {
        /// Id that was requested.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// A run needs its language model, but none was given.
    #[error(
        "this run needs its language model, but none was given: load it with the `llm` options of \
         the run's configuration"
    )]
    NoLlm,
    /// The given language model is not that of the run.
    #[error(
        "{path}: the run uses the checkpoint {recorded}, but {given} was given; use the same one, \
         or start another run"
    )]
    OtherCheckpoint {
        /// Path of the record in the run's folder.
        path: PathBuf,
        /// Name and short hash of the run's checkpoint.
        recorded: String,
        /// Name and short hash of the given checkpoint.
        given: String,
    },
    /// The loss or a gradient is not a finite number.
    #[error(
        "{what} is not finite in step {step} of the {stage} stage; lower its learning rate or \
         raise its warm-up (the last checkpoint is kept)"
    )]
    NotFinite {
        /// Quantity that is not finite: the loss, with its value, or the gradient.
        what: String,
        /// Name of the stage, `"item"` or `"user"`.
        stage: &'static str,
        /// Number of the step within the stage.
        step: u64,
    },
    /// A parameter received no gradient and would not be trained.
    #[error("no gradient reached {parameter} in the {stage} stage")]
    NoGradient {
        /// Name of the parameter.
        parameter: String,
        /// Name of the stage, `"item"` or `"user"`.
        stage: &'static str,
    },
    /// The receiver of the progress cancelled the run. The run can be resumed.
    #[error("cancelled; the run can be resumed")]
    Cancelled,
    /// No item has the requested field.
    #[error("no item has a field `{field}`; the fields are {fields}")]
    UnknownField {
        /// Name of the requested field.
        field: String,
        /// Names of the existing fields, separated by commas.
        fields: String,
    },
    /// A text encoder that the run used is missing.
    #[error("new texts need the {} {name}, which is not loaded", .encoder.described())]
    EncoderMissing {
        /// Kind of the missing encoder.
        encoder: ItemEncoder,
        /// Name of the missing encoder.
        name: String,
    },
    /// The recommender does not support the operation.
    #[error("{0}")]
    Unsupported(String),
    /// An error of `glta-data`.
    #[error(transparent)]
    Dataset(#[from] glta_data::Error),
    /// An error of `glta-graph`.
    #[error(transparent)]
    Graph(glta_graph::Error),
    /// An error of the language model.
    #[error(transparent)]
    Llm(#[from] glta_llm::Error),
    /// An error of communication between ranks.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// An error of `glta-projector`.
    #[error(transparent)]
    Projector(#[from] glta_projector::Error),
    /// An error of `glta-gllm`.
    #[error(transparent)]
    Gllm(#[from] glta_gllm::Error),
    /// An error of `glta-linear`.
    #[error(transparent)]
    Linear(glta_linear::Error),
    /// An error of `glta-metrics`.
    #[error(transparent)]
    Metrics(#[from] glta_metrics::Error),
    /// An inconsistency that only a bug in the library can cause.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<glta_core::Cancelled> for Error {
    fn from(_: glta_core::Cancelled) -> Self {
        Self::Cancelled
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

impl From<glta_graph::Error> for Error {
    fn from(error: glta_graph::Error) -> Self {
        match error {
            glta_graph::Error::Cancelled(_) => Self::Cancelled,
            glta_graph::Error::Comm(error) => Self::Comm(error),
            other => Self::Graph(other),
        }
    }
}

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn file(path: &Path, problem: impl ToString) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// Result with this crate's [`enum@Error`] as the error type.
pub type Result<T> = std::result::Result<T, Error>;
