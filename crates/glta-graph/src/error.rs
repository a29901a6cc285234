use std::path::PathBuf;

use crate::Trained;

/// Errors of graphs and of LightGCN.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has an invalid value.
    #[error("LightGCN setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong and which values are valid.
        problem: String,
    },
    /// An array or a data set has the wrong size.
    #[error("{what}: {got} where {expected} are needed")]
    Shape {
        /// The quantity that was counted, such as `embedding columns`.
        what: &'static str,
        /// The required number.
        expected: usize,
        /// The actual number.
        got: usize,
    },
    /// There are more nodes than the graph can number.
    #[error("{len} {kind} are more than the {limit} that the graph can number")]
    TooLarge {
        /// Kind of the nodes: `"users"` or `"items"`.
        kind: &'static str,
        /// The actual number.
        len: usize,
        /// The maximum number.
        limit: usize,
    },
    /// Each user has either no items or all items, so there are no triples to train on.
    #[error("there is nothing to train on: every user has no item or all items")]
    NothingToTrain,
    /// The loss is infinite or NaN.
    #[error(
        "the loss is {loss} in epoch {epoch}: lower the learning rate ({learning_rate}) or the initial scale"
    )]
    Diverged {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// The value of the loss.
        loss: f64,
        /// The learning rate in that epoch.
        learning_rate: f32,
    },
    /// The progress callback cancelled training. Contains the result so far.
    #[error("training was cancelled")]
    Cancelled(Box<Trained>),
    /// The communication between ranks failed.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file does not contain node embeddings.
    #[error("{}: not a file of node embeddings: {problem}", path.display())]
    Format {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// The evaluation on the validation data failed.
    #[error("evaluation on the validation data failed")]
    Evaluation(#[from] glta_metrics::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
