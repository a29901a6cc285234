//! Layout of weights and keys.

/// Width of a column panel: two AVX-512 vectors.
pub(crate) const PANEL: usize = 32;

/// Content of a 32-bit element of a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// An f32.
    Single,
    /// Two bf16 inputs that are `distance` apart in a run of twice as many; the first one is in the
    /// lower half.
    Pair { distance: usize },
}

impl Element {
    /// Number of inputs in an element.
    pub(crate) fn inputs(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pair { .. } => 2,
        }
    }
}
