use std::fmt;

/// Why a system is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no language model.
    Language,
    /// There is no sentence encoder.
    Encoder,
    /// What reads texts needs two.
    Texts { items: usize, texts: usize },
    /// None of its text encoders is there, or all leave out all texts.
    NoEncoder,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Language => write!(f, "there is no language model"),
            Self::Encoder => write!(f, "there is no sentence encoder"),
            Self::Texts { items, texts } => {
                write!(f, "it reads texts, and {texts} of {items} items have one")
            }
            Self::NoEncoder => {
                write!(f, "it reads texts, and none of the encoders in `item_text` can read them")
            }
        }
    }
}
