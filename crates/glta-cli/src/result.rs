//! The result type of programs.

/// Result with any error as the error type.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
