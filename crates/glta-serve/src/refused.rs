//! Writes that were not done, as clients see them.

use axum::http::StatusCode;
use glta_align::{Error, ItemEncoder};
use glta_core::with_causes;

use crate::api_error::ApiError;
use crate::journal::Refused;

/// A write that was not done, as clients see it.
pub(crate) fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Taken(id) => ApiError::new(
            StatusCode::CONFLICT,
            format!("the id {id:?} is that of another interaction; nothing is stored"),
        ),
        Refused::Full => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many writes wait"),
        Refused::Failed(message) => ApiError::internal(message),
    }
}

/// An item that was not taken in, as clients see it.
pub(crate) fn not_taken(error: &Error) -> ApiError {
    let conflict = |message| ApiError::new(StatusCode::CONFLICT, message);
    match error {
        Error::EncoderMissing { encoder: ItemEncoder::Sentence, .. } => {
            conflict(format!("{error}: start the service with --text-encoder DIR"))
        }
        Error::EncoderMissing { encoder: ItemEncoder::LanguageModel, .. } => {
            conflict(format!("{error}: start the service with --llm DIR"))
        }
        Error::Unsupported(_) | Error::OtherCheckpoint { .. } => conflict(error.to_string()),
        error => ApiError::internal(with_causes(error)),
    }
}
