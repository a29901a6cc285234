use std::path::Path;

use crate::error::Error;

pub(super) fn problem(field: &'static str, problem: impl Into<String>) -> Error {
    Error::Config { field, problem: problem.into() }
}

/// Adds the path of the file to the error.
pub(super) fn located(path: &Path, error: Error) -> Error {
    match error {
        Error::Config { field, problem } => Error::json(path, format!("`{field}`: {problem}")),
        Error::Unsupported { what, supported } => {
            Error::Unsupported { what: format!("{what} in {}", path.display()), supported }
        }
        other => other,
    }
}
