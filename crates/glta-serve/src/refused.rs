//! Maps rejected writes to errors of the API.

use axum::http::StatusCode;
use glta_align::{Error, ItemEncoder};
use glta_core::with_causes;

use crate::api_error::ApiError;
use crate::journal::Refused;

/// Returns the error for a write that failed.
pub(crate) fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Taken(id) => ApiError::new(
            StatusCode::CONFLICT,
            format!("the id {id:?} belongs to another interaction; nothing was stored"),
        ),
        Refused::Full => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many writes are waiting")
        }
        Refused::Failed(message) => ApiError::internal(message),
    }
}

/// Returns the error for an item that was not added.
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
