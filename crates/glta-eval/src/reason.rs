use std::fmt;

/// The reason why a system is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The system needs a language model, but the experiment has none.
    Language,
    /// The system needs a sentence encoder, but the experiment has none.
    Encoder,
    /// The system needs at least two items with texts, but the data set has fewer.
    Texts { items: usize, texts: usize },
    /// The system needs text vectors, but no encoder is available or none returns vectors.
    NoEncoder,
    /// No user has at least two training items.
    FewItems,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Language => write!(f, "there is no language model"),
            Self::Encoder => write!(f, "there is no sentence encoder"),
            Self::Texts { items, texts } => {
                write!(f, "it needs texts, and {texts} of {items} items have one")
            }
            Self::FewItems => write!(f, "no user has two training items"),
            Self::NoEncoder => {
                write!(
                    f,
                    "it needs text vectors, and none of the encoders in `item_text` is available"
                )
            }
        }
    }
}
