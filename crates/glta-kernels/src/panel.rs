//! How weights and keys are laid out for the kernels.

/// Width of a column panel: two AVX-512 vectors.
pub(crate) const PANEL: usize = 32;

/// What a 32-bit element of a product's operands holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// An f32.
    Single,
    /// Two inputs in bf16 that lie `distance` apart in a run of twice as many,
    /// the first in the lower half.
    Pair { distance: usize },
}

impl Element {
    /// Inputs in an element.
    pub(crate) fn inputs(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pair { .. } => 2,
        }
    }
}
