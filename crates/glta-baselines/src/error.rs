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
    /// A dense item-item matrix would not fit.
    #[error(
        "EASE needs a dense matrix over all items: {items} items take {gigabytes:.1} GB while it \
         is fitted, the limit `max_items` is {limit}; raise it if that much memory is there, or \
         filter rare items"
    )]
    TooManyItems {
        /// Number of items.
        items: usize,
        /// The configured limit.
        limit: usize,
        /// Memory while fitting.
        gigabytes: f64,
    },
    /// The regularised Gram matrix is not positive definite in floating point.
    #[error("EASE cannot invert the item-item matrix at `l2` {l2}: raise it")]
    NotPositiveDefinite {
        /// The configured regularisation.
        l2: f64,
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
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// A user that the model was not fitted on.
    #[error("user {user} is unknown: the model was fitted on {users} users")]
    User {
        /// The user asked for.
        user: u32,
        /// Number of users.
        users: usize,
    },
    /// Parts of a fitted EASE that do not fit together.
    #[error(
        "EASE weights of shape ({rows}, {columns}) and a diagonal of {diagonal} do not fit {items} \
         items"
    )]
    Weights {
        /// Rows of the weights.
        rows: usize,
        /// Columns of the weights.
        columns: usize,
        /// Length of the diagonal.
        diagonal: usize,
        /// Number of items.
        items: usize,
    },
    /// Text vectors that do not fit.
    #[error("text vectors: {0}")]
    TextVectors(String),
    /// A file of a sentence encoder that cannot be used.
    #[cfg(feature = "text-encoder")]
    #[error("sentence encoder: {}: {problem}", path.display())]
    Encoder {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The sentence encoder's tokenizer refused a text.
    #[cfg(feature = "text-encoder")]
    #[error("the sentence encoder's tokenizer: {0}")]
    Tokenizer(String),
}

#[cfg(feature = "text-encoder")]
impl Error {
    pub(crate) fn encoder(path: &std::path::Path, problem: impl std::fmt::Display) -> Self {
        Self::Encoder { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
