use thiserror::Error;

/// Errors of the GLLM head.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The shape of a tensor differs from the shape that the head expects.
    #[error("{what} should have shape {expected}, not {got:?}")]
    Shape {
        /// Name of the tensor.
        what: &'static str,
        /// The expected shape.
        expected: String,
        /// The actual shape.
        got: Vec<usize>,
    },
    /// An item id is outside the catalogue.
    #[error("item {item} in row {row} does not exist: the head knows items 0..{items}")]
    ItemOutOfRange {
        /// Row of the batch.
        row: usize,
        /// The item id.
        item: u32,
        /// Number of items in the catalogue.
        items: usize,
    },
    /// An item is both a target and masked.
    #[error("item {item} of row {row} is a target and masked at the same time")]
    MaskedTarget {
        /// Row of the batch.
        row: usize,
        /// The item id.
        item: u32,
    },
    /// No row has a target, so the mean loss is undefined.
    #[error("the batch has no targets")]
    NoTargets,
    /// A logit is NaN or `+∞`.
    #[error("the logit of item {item} in slot {slot} is NaN or infinite")]
    NotANumber {
        /// Index of the slot.
        slot: usize,
        /// The item id.
        item: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The weights of the head could not be created.
    #[error("could not create the head's weights")]
    Weights(#[from] glta_projector::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
