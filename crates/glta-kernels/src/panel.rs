//! Layout of weights and keys in panels of columns.

/// Number of columns in a panel: two AVX-512 vectors.
pub(crate) const PANEL: usize = 32;

/// Content of a 32-bit element of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// One f32.
    Single,
    /// Two bf16 inputs that are `distance` apart. Runs of `2 * distance` inputs are paired; the
    /// input from the first half of a run is in the lower half of the element.
    Pair { distance: usize },
}

impl Element {
    /// Returns the number of inputs in an element.
    pub(crate) fn inputs(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pair { .. } => 2,
        }
    }
}
