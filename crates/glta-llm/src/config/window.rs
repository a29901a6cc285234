use serde::{Deserialize, Serialize};

/// Sliding-window attention, as in Mistral.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Number of tokens that a token attends to, including itself.
    pub tokens: usize,
    /// For each layer, whether it uses the window. Layers beyond the end of the list do not use it.
    pub layers: Vec<bool>,
}
