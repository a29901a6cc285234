use crate::error::{Error, Result};
use std::ops::ControlFlow;

/// The answer of a progress callback as a result.
pub(super) fn check_cancelled(answer: ControlFlow<()>) -> Result<()> {
    match answer {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
