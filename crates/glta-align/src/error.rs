use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::item_encoder::ItemEncoder;

/// What can go wrong while a recommender is trained, saved, loaded or asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file has content that this library did not write or no longer reads.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A prompt template that cannot be used.
    #[error("prompt templates {file}: {problem}")]
    Template {
        /// The file, or the shipped template's name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A configuration field with a value that cannot work.
    #[error("configuration: {field}: {problem}")]
    Config {
        /// The field, such as `model.slots`.
        field: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A text encoder failed.
    #[error("the text encoder failed")]
    Encoder(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A configuration field that does not exist, or a value that it cannot hold.
    #[error(transparent)]
    Settings(#[from] glta_core::Error),
    /// Configuration text that does not parse, or a preset that does not exist.
    #[error("configuration: {0}")]
    ConfigText(String),
    /// The folder of a run to be created already holds one.
    #[error("{path} already holds a run; resume it, or choose another folder")]
    RunExists {
        /// The run's folder.
        path: PathBuf,
    },
    /// The folder of a run to be resumed holds none.
    #[error("{path} holds no run to resume; create one, or choose another folder")]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works in the folder.
    #[error("{path} is in use by another process; wait for it or choose another folder")]
    RunLocked {
        /// The run's folder.
        path: PathBuf,
    },
    /// The data given does not fit together.
    #[error("training data: {0}")]
    Data(String),
    /// A user id that the recommender does not know.
    #[error("user {user} is unknown: this recommender knows users 0..{users}")]
    UnknownUser {
        /// The id asked for.
        user: u32,
        /// Number of users.
        users: usize,
    },
    /// An item id that the recommender does not know.
    #[error("item {item} is unknown: this recommender knows items 0..{items}")]
    UnknownItem {
        /// The id asked for.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// A run that uses a language model was given none.
    #[error(
        "this run needs its language model, but none was given: load it with the `llm` options of \
         the run's configuration"
    )]
    NoLlm,
    /// A language model other than the run's was given.
    #[error(
        "{path}: the run uses the checkpoint {recorded}, but {given} was given; give the same one, \
         or start another run"
    )]
    OtherCheckpoint {
        /// The record in the run's folder.
        path: PathBuf,
        /// Name and short hash of the run's checkpoint.
        recorded: String,
        /// The same of the one that was given.
        given: String,
    },
    /// The loss or a gradient is not a finite number.
    #[error(
        "{what} is not finite in step {step} of the {stage} stage; lower its learning rate or \
         raise its warm-up (the last checkpoint is kept)"
    )]
    NotFinite {
        /// Loss or gradient.
        what: String,
        /// Name of the stage.
        stage: &'static str,
        /// Step within the stage.
        step: u64,
    },
    /// A trained tensor received no gradient: it would silently not learn.
    #[error("no gradient reached {parameter} in the {stage} stage")]
    NoGradient {
        /// Name of the parameter.
        parameter: String,
        /// Name of the stage.
        stage: &'static str,
    },
    /// The progress callback asked to stop. What was saved stays and can be resumed.
    #[error("cancelled; the run can be resumed")]
    Cancelled,
    /// A field that no item has.
    #[error("no item has a field `{field}`; there are {fields}")]
    UnknownField {
        /// The field asked for.
        field: String,
        /// The fields that there are.
        fields: String,
    },
    /// A text encoder of the run that is not at hand.
    #[error("new texts are read by the {} {name}, which is not loaded", .encoder.described())]
    EncoderMissing {
        /// What kind of encoder it is.
        encoder: ItemEncoder,
        /// Its name.
        name: String,
    },
    /// A recommender that cannot do what was asked.
    #[error("{0}")]
    Unsupported(String),
    /// From the data crate.
    #[error(transparent)]
    Dataset(#[from] glta_data::Error),
    /// From the graph crate.
    #[error(transparent)]
    Graph(glta_graph::Error),
    /// From the language model.
    #[error(transparent)]
    Llm(#[from] glta_llm::Error),
    /// From the other ranks.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// From the projectors.
    #[error(transparent)]
    Projector(#[from] glta_projector::Error),
    /// From the head.
    #[error(transparent)]
    Gllm(#[from] glta_gllm::Error),
    /// From the linear item model and the text vectors.
    #[error(transparent)]
    Linear(glta_linear::Error),
    /// From the metrics.
    #[error(transparent)]
    Metrics(#[from] glta_metrics::Error),
    /// The library contradicts itself: a bug, whatever was given.
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

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
