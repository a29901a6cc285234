//! Whether running users through the language model adds to the linear model: the rows of
//! `run.llm_path`.

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
