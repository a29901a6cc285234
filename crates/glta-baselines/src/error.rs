/// Errors of training a baseline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has an invalid value.
    #[error("{system} setting `{field}`: {problem}")]
    Config {
        /// Name of the baseline.
        system: &'static str,
        /// Name of the setting.
        field: &'static str,
        /// Description of the problem and the valid values.
        problem: String,
    },
    /// Every user has no item or all items, so no triple of a user, an item of the user and a
    /// different item exists.
    #[error("there is nothing to train on: every user has no item or all items")]
    NothingToTrain,
    /// The loss is infinite or NaN.
    #[error("the loss is not finite in epoch {epoch}: lower the learning rate")]
    NotFinite {
        /// Number of the epoch, counted from 1.
        epoch: usize,
    },
    /// A trained tensor received no gradient and would silently stay untrained.
    #[error("no gradient reached one of the trained tensors")]
    NoGradient,
    /// The progress receiver cancelled training.
    #[error("cancelled")]
    Cancelled,
    /// An error of `glta-graph`.
    #[error(transparent)]
    Graph(#[from] glta_graph::Error),
    /// An error of `glta-metrics`.
    #[error(transparent)]
    Metrics(#[from] glta_metrics::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The text vectors are invalid.
    #[error("text vectors: {0}")]
    TextVectors(String),
}

impl From<glta_core::Cancelled> for Error {
    fn from(_: glta_core::Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Result with this crate's [`Error`] as the error type.
pub type Result<T> = std::result::Result<T, Error>;
