use std::path::PathBuf;

use crate::Trained;

/// Errors of building a graph and of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has an invalid value.
    #[error("LightGCN setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The problem, and the allowed values.
        problem: String,
    },
    /// An array or a data set has the wrong size.
    #[error("{what}: {got} where {expected} are needed")]
    Shape {
        /// What was counted.
        what: &'static str,
        /// The required count.
        expected: usize,
        /// The given count.
        got: usize,
    },
    /// There are more nodes than the graph can number.
    #[error("{len} {kind} are more than the {limit} that the graph can number")]
    TooLarge {
        /// `"users"` or `"items"`.
        kind: &'static str,
        /// The given count.
        len: usize,
        /// The largest possible count.
        limit: usize,
    },
    /// Every user has no item or all items, so there are no triples.
    #[error("there is nothing to train on: every user has no item or all items")]
    NothingToTrain,
    /// The loss is infinite or NaN.
    #[error(
        "the loss is {loss} in epoch {epoch}: lower the learning rate ({learning_rate}) or the initial scale"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The loss.
        loss: f64,
        /// The learning rate of that epoch.
        learning_rate: f32,
    },
    /// The progress receiver cancelled training. Contains the result so far.
    #[error("training was cancelled")]
    Cancelled(Box<Trained>),
    /// The communication between ranks failed.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file does not contain node embeddings.
    #[error("{}: not a file of node embeddings: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// Evaluating on the validation data failed.
    #[error("evaluation on the validation data failed")]
    Evaluation(#[from] glta_metrics::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
