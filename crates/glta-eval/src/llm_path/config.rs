use serde::{Deserialize, Serialize};

use super::names;
use crate::{Error, Result};

/// Settings of the rows of `run.llm_path`, which add scores of the language model to the linear
/// model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmPathConfig {
    /// Maximum number of titles in a prompt. Default 12.
    pub titles: usize,
    /// Maximum number of tokens of a title. Default 12.
    pub title_tokens: usize,
    /// Number of items per user whose scores are changed: the best items of the linear model.
    /// Default 50.
    pub candidates: usize,
    /// Number of further candidates per user: the items without training interactions whose text
    /// vectors are nearest to those of the user's items. Default 10.
    pub new_items: usize,
    /// Ridge penalties to try, relative to the variance of a feature. Default 0.01, 0.1, 1, 10.
    pub ridge: Vec<f64>,
    /// Weights of the added scores to try in addition to 0. Scores are scaled to standard deviation
    /// 1 for each user. Default 0.05, 0.1, 0.2, 0.4, 0.8, 1.6.
    pub weights: Vec<f64>,
    /// Number of prompts per batch. Default 16.
    pub batch_size: usize,
    /// Minimum gain in N@10 over the linear model and every control for a positive verdict. Default
    /// 0.002.
    pub min_gain: f64,
}

impl Default for LlmPathConfig {
    fn default() -> Self {
        Self {
            titles: 12,
            title_tokens: 12,
            candidates: 50,
            new_items: 10,
            ridge: vec![0.01, 0.1, 1.0, 10.0],
            weights: vec![0.05, 0.1, 0.2, 0.4, 0.8, 1.6],
            batch_size: 16,
            min_gain: 0.002,
        }
    }
}

impl LlmPathConfig {
    /// Returns the names of all rows: the linear model, the systems with an added score of the
    /// language model, and their controls.
    pub fn systems() -> Vec<String> {
        names::ALL.map(String::from).to_vec()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |field, problem: String| Err(Error::Config { field, problem });
        for (field, size) in [
            ("llm_path.titles", self.titles),
            ("llm_path.title_tokens", self.title_tokens),
            ("llm_path.candidates", self.candidates),
            ("llm_path.batch_size", self.batch_size),
            ("llm_path.ridge", self.ridge.len()),
        ] {
            if size == 0 {
                return invalid(field, "must be at least 1".into());
            }
        }
        for (field, values) in
            [("llm_path.ridge", &self.ridge), ("llm_path.weights", &self.weights)]
        {
            if let Some(value) = values.iter().find(|v| !(**v > 0.0 && v.is_finite())) {
                return invalid(field, format!("{value} is not a positive number"));
            }
        }
        if !self.min_gain.is_finite() {
            return invalid("llm_path.min_gain", format!("{} is not a number", self.min_gain));
        }
        Ok(())
    }
}
