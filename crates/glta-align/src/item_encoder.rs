use serde::{Deserialize, Serialize};

/// A text encoder for the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemEncoder {
    /// Hidden states of the frozen language model.
    LanguageModel,
    /// [`TfIdf`](glta_linear::TfIdf), which needs no model.
    TfIdf,
    /// A sentence encoder, any [`TextEncoder`](glta_core::TextEncoder).
    Sentence,
}

impl ItemEncoder {
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::LanguageModel => "language model",
            Self::TfIdf => "TF-IDF encoder",
            Self::Sentence => "sentence encoder",
        }
    }
}
