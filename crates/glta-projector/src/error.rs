use thiserror::Error;

/// Errors of projectors and of prompts with soft tokens.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The width of the nodes differs from the input dimension of the projector.
    #[error("the projector takes nodes of shape (n, {expected}), not {got:?}")]
    NodeShape {
        /// Input dimension `d` of the projector.
        expected: usize,
        /// The actual shape.
        got: Vec<usize>,
    },
    /// A prompt refers to a soft token that is not in the given tensor.
    #[error("row {row} of the batch names soft token {index}, but only {len} were given")]
    SoftIndex {
        /// Row of the batch.
        row: usize,
        /// Index of the soft token.
        index: u32,
        /// Number of soft tokens.
        len: usize,
    },
    /// A prompt contains neither ordinary nor soft tokens.
    #[error("row {row} of the batch is empty: a prompt needs at least one token")]
    EmptyPrompt {
        /// Row of the batch.
        row: usize,
    },
    /// The batch contains no rows.
    #[error("a batch of prompts needs at least one row")]
    EmptyBatch,
    /// A size is zero, or a scale is not positive.
    #[error("{what} must be positive, not {value}")]
    NotPositive {
        /// Name of the value.
        what: &'static str,
        /// The actual value.
        value: f64,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
