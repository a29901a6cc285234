use thiserror::Error;

/// Errors of editing a configuration ([`settings`](crate::settings)).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A path does not name a field of the configuration.
    #[error("setting `{path}` does not exist; near names: {}", near.join(", "))]
    UnknownSetting {
        /// Dotted path that was given.
        path: String,
        /// Known field names that are most similar to the unknown one.
        near: Vec<String>,
    },
    /// A value does not fit its field.
    #[error("setting `{path}`: {problem}")]
    Setting {
        /// Dotted path of the field.
        path: String,
        /// Description of the problem with the value.
        problem: String,
    },
    /// A text is not valid TOML.
    #[error("the settings are not valid TOML")]
    Toml(#[from] toml::de::Error),
}

/// Result with this crate's [`enum@Error`] as the error type.
pub type Result<T> = std::result::Result<T, Error>;

/// Formats an error and its causes as one message. Errors of this workspace keep their cause in
/// `source` and do not repeat it in their own message.
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
