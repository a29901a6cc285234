use serde::{Deserialize, Serialize};

/// Sliding-window attention, as in Mistral.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Number of tokens that a token attends to, including itself.
    pub tokens: usize,
    /// Whether the layer uses the window, for each layer. Layers beyond the end of the list do not.
    pub layers: Vec<bool>,
}
