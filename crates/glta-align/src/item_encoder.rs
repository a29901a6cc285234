use serde::{Deserialize, Serialize};

/// A kind of text encoder for the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemEncoder {
    /// The frozen language model, whose hidden states become the vector.
    LanguageModel,
    /// [`TfIdf`](glta_linear::TfIdf), which needs no pretrained model.
    TfIdf,
    /// A sentence encoder, which is any [`TextEncoder`](glta_core::TextEncoder).
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
