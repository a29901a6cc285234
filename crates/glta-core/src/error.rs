use thiserror::Error;

/// What can go wrong in this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that leads to no field of the configuration.
    #[error("setting `{path}` does not exist; near names: {}", near.join(", "))]
    UnknownSetting {
        /// Dotted path as given.
        path: String,
        /// The nearest of the fields that exist there.
        near: Vec<String>,
    },
    /// A value that its field cannot hold.
    #[error("setting `{path}`: {problem}")]
    Setting {
        /// Dotted path of the field.
        path: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// Text that is not TOML.
    #[error("the settings are not valid TOML")]
    Toml(#[from] toml::de::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The message of an error followed by the messages of its causes, for people to read. The
/// errors of this workspace keep a cause in `source` and never in their own message.
///
/// ```
/// use std::io::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Other, "the disk is full");
/// assert_eq!(glta_core::with_causes(&error), "the disk is full");
/// ```
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let messages = std::iter::successors(Some(error), |error| error.source());
    messages.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
