use glta_kernels::{Precision, SimdLevel};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Options for loading and running a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlamaOptions {
    /// Number of layers to load, followed by the final norm; `None`, the default, for all layers.
    pub layers: Option<usize>,
    /// Instruction set of the CPU kernels; `None`, the default, for the best one available.
    pub simd: Option<SimdLevel>,
    /// Arithmetic of the products with quantised weights. Default f32.
    pub precision: Precision,
}

impl LlamaOptions {
    /// Rejects an instruction set that the processor does not support.
    pub(crate) fn check_simd(&self) -> Result<()> {
        match self.simd.filter(|level| !level.is_supported()) {
            Some(level) => Err(Error::Config {
                field: "simd",
                problem: format!("this processor does not run {level:?}"),
            }),
            None => Ok(()),
        }
    }
}

/// Options of text generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateOptions {
    /// Maximum number of new tokens per prompt. Default 64.
    pub max_new_tokens: usize,
    /// Sampling temperature; 0, the default, selects the most likely token.
    pub temperature: f32,
    /// Number of most likely tokens to sample from; 0, the default, for all tokens.
    pub top_k: usize,
    /// Total probability of the most likely tokens to sample from. Default 1.
    pub top_p: f32,
    /// Penalty for tokens that are already in the text: positive scores are divided by the penalty,
    /// negative scores are multiplied. 1, the default, disables it.
    pub repetition_penalty: f32,
    /// Tokens that end a text, in addition to the model's own end tokens. They are not part of the
    /// result. Default none.
    pub stop_ids: Vec<u32>,
    /// Texts that end a result. They are removed, with all text after them. They may contain
    /// special tokens such as `<|im_end|>`. Only
    /// [`Llama::generate_text`](crate::Llama::generate_text) supports them. Default none.
    pub stop: Vec<String>,
    /// Whether to continue after the model's end token. Default `false`.
    pub ignore_eos: bool,
    /// Seed of the sampling. Each prompt index has its own random stream. Default 0.
    pub seed: u64,
    /// Maximum number of prompts in a batch. Default 32.
    pub batch_size: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            stop_ids: Vec::new(),
            stop: Vec::new(),
            ignore_eos: false,
            seed: 0,
            batch_size: 32,
        }
    }
}

impl GenerateOptions {
    /// Whether every token is the most likely one by the model's own scores.
    pub(crate) fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && self.repetition_penalty == 1.0
    }

    /// Checks that the fields are valid.
    ///
    /// # Errors
    /// Returns an error that names the first invalid field.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, problem: String| Err(Error::Config { field, problem });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return invalid("temperature", format!("{} is not a number >= 0", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return invalid("top_p", format!("{} is not in (0, 1]", self.top_p));
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return invalid(
                "repetition_penalty",
                format!("{} is not positive", self.repetition_penalty),
            );
        }
        if self.batch_size == 0 {
            return invalid("batch_size", "0".into());
        }
        if self.stop.iter().any(String::is_empty) {
            return invalid("stop", "an empty text would end every answer at once".into());
        }
        Ok(())
    }
}
