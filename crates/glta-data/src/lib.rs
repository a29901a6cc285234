//! Raw recommendation data sets to interactions, texts and splits.

mod error;
mod interactions;

pub use error::{Error, Result};
pub use interactions::Interactions;
