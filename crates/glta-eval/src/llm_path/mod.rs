//! Rows of `run.llm_path`: they measure whether the language model, run on a prompt of a user's
//! titles, improves the linear model.

mod config;
mod cost;
mod form;
mod names;
mod prompts;
mod reader;
mod ridge;
mod scorer;
mod verdict;

pub use config::LlmPathConfig;
pub use cost::LlmPathCost;
pub use verdict::LlmPathVerdict;

pub(crate) use form::{Form, all};
