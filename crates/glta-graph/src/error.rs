use std::path::PathBuf;

use crate::Trained;

/// What can go wrong while a graph is built or a model is trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration field has a value that cannot work.
    #[error("LightGCN setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
    /// An array or data set does not have the size the others call for.
    #[error("{what}: {got} where {expected} are needed")]
    Shape {
        /// What was counted.
        what: &'static str,
        /// The count that fits.
        expected: usize,
        /// The count that was given.
        got: usize,
    },
    /// More nodes than the graph can number.
    #[error("{len} {kind} are more than the {limit} that the graph can number")]
    TooLarge {
        /// `"users"` or `"items"`.
        kind: &'static str,
        /// The count that was given.
        len: usize,
        /// The largest count possible.
        limit: usize,
    },
    /// There is nothing to train on.
    #[error("the training data hold no user with both an item and an item left to sample")]
    NothingToTrain,
    /// The loss became infinite or NaN.
    #[error(
        "the loss is {loss} in epoch {epoch}: lower the learning rate ({learning_rate}) or the initial scale"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The loss found.
        loss: f64,
        /// The learning rate of that epoch.
        learning_rate: f32,
    },
    /// The progress callback asked to stop; what was trained until then.
    #[error("training was cancelled")]
    Cancelled(Box<Trained>),
    /// From the other ranks.
    #[error(transparent)]
    Comm(#[from] glta_comm::Error),
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold embeddings.
    #[error("{}: not a file of node embeddings: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Evaluating on the validation data failed.
    #[error("evaluation on the validation data failed")]
    Evaluation(#[from] glta_metrics::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
