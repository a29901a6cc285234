use thiserror::Error;

/// What can go wrong in the GLLM head.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor of another shape than the head was made for.
    #[error("{what} should have shape {expected}, not {got:?}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// The expected shape.
        expected: String,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// An item id outside the catalogue.
    #[error("item {item} in row {row} does not exist: the head knows items 0..{items}")]
    ItemOutOfRange {
        /// Row of the batch.
        row: usize,
        /// The item id.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// An item is a target and left out of the softmax at the same time.
    #[error("item {item} of row {row} is a target and masked at the same time")]
    MaskedTarget {
        /// Row of the batch.
        row: usize,
        /// The item id.
        item: u32,
    },
    /// No row has a target, so there is nothing to average.
    #[error("the batch has no targets")]
    NoTargets,
    /// Logits that cannot be ranked.
    #[error("the logit of item {item} in slot {slot} is not a number, or infinite")]
    NotANumber {
        /// Slot.
        slot: usize,
        /// Item id.
        item: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Making a trained tensor failed.
    #[error("could not make the head's weights")]
    Weights(#[from] glta_projector::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
