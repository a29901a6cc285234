/// What can go wrong while a baseline is fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration field has a value that cannot work.
    #[error("{system} setting `{field}`: {problem}")]
    Config {
        /// Name of the baseline.
        system: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
    /// No user has both an item and something that is not theirs.
    #[error("there is nothing to train on: no user has an item and lacks another")]
    NothingToTrain,
    /// The loss is not a finite number.
    #[error("the loss is not finite in epoch {epoch}: lower the learning rate")]
    NotFinite {
        /// The epoch, counted from 1.
        epoch: usize,
    },
    /// A trained tensor received no gradient: it would silently not learn.
    #[error("no gradient reached one of the trained tensors")]
    NoGradient,
    /// The progress callback asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// From the graph crate.
    #[error(transparent)]
    Graph(#[from] glta_graph::Error),
    /// From the metrics.
    #[error(transparent)]
    Metrics(#[from] glta_metrics::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Text vectors that do not fit.
    #[error("text vectors: {0}")]
    TextVectors(String),
}

impl From<glta_core::Cancelled> for Error {
    fn from(_: glta_core::Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
