use thiserror::Error;

/// What can go wrong while nodes are projected or put into prompts.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Node embeddings of another width than the projector was made for.
    #[error("the projector takes nodes of shape (n, {expected}), not {got:?}")]
    NodeShape {
        /// The projector's input dimension `d`.
        expected: usize,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// A prompt names a soft token that was not given.
    #[error("row {row} of the batch names soft token {index}, but only {len} were given")]
    SoftIndex {
        /// Row of the batch.
        row: usize,
        /// Index of the soft token.
        index: u32,
        /// How many soft tokens there are.
        len: usize,
    },
    /// A prompt without a single token.
    #[error("row {row} of the batch is empty: a prompt needs at least one token")]
    EmptyPrompt {
        /// Row of the batch.
        row: usize,
    },
    /// The batch has no rows.
    #[error("a batch of prompts needs at least one row")]
    EmptyBatch,
    /// A size of zero or a scale that is not a positive number.
    #[error("{what} must be positive, not {value}")]
    NotPositive {
        /// Which value.
        what: &'static str,
        /// The value given.
        value: f64,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
