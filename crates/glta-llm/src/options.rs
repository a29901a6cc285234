use glta_kernels::{Precision, SimdLevel};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How much of a checkpoint to load, and how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlamaOptions {
    /// Keep only the first N layers and the final norm; `None` for all.
    pub layers: Option<usize>,
    /// Instruction set of the CPU kernels; `None` for the best there is.
    pub simd: Option<SimdLevel>,
    /// Arithmetic of the products with quantised weights.
    pub precision: Precision,
}

impl LlamaOptions {
    /// Refuses an instruction set that this processor does not run.
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

/// How text is generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateOptions {
    /// Most tokens generated per prompt.
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token; larger values flatten the distribution.
    pub temperature: f32,
    /// Draw from the k likeliest tokens only; 0 for all.
    pub top_k: usize,
    /// Draw from the likeliest tokens that together have this probability.
    pub top_p: f32,
    /// Scores of tokens seen before are divided by this (multiplied where
    /// negative); 1 for none.
    pub repetition_penalty: f32,
    /// Tokens that end a text beside the model's own; none of them is part of
    /// the result.
    pub stop_ids: Vec<u32>,
    /// Texts that end a text and are cut off with what follows; special tokens, as
    /// `<|im_end|>`, may be among them
    /// ([`Llama::generate_text`](crate::Llama::generate_text) only).
    pub stop: Vec<String>,
    /// Go on after the model's end token.
    pub ignore_eos: bool,
    /// Seed of the draws. Every prompt has its own stream, by its index.
    pub seed: u64,
    /// Most prompts worked on at once.
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
    /// Checks the fields.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field, problem: String| Err(Error::Config { field, problem });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong("temperature", format!("{} is not a number >= 0", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", format!("{} is not in (0, 1]", self.top_p));
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return wrong(
                "repetition_penalty",
                format!("{} is not positive", self.repetition_penalty),
            );
        }
        if self.batch_size == 0 {
            return wrong("batch_size", "0".into());
        }
        if self.stop.iter().any(String::is_empty) {
            return wrong("stop", "an empty text would end every answer at once".into());
        }
        Ok(())
    }
}
