use serde::{Deserialize, Serialize};

/// Attention to the last tokens only, as in Mistral.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Tokens that a token attends to, itself among them.
    pub tokens: usize,
    /// Whether each layer has the window; layers beyond the list have none.
    pub layers: Vec<bool>,
}
