use std::path::Path;

use candle_core::Device;
use glta_llm::{Llama, LlamaOptions, Tokenizer};

use crate::{Result, Templates};

/// A frozen language model with what is needed to talk to it.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// What prompts run through; [`LlamaOptions::layers`] may have cut it.
    pub llama: Llama,
    /// What writes profiles and predictions: always whole, for a model that was
    /// cut says nothing sensible.
    pub writer: Llama,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Prompts in the model's chat form.
    pub templates: Templates,
    /// What it is called in records, such as the name of its folder.
    pub name: String,
}

impl LanguageModel {
    /// Loads a checkpoint's folder. Prompts are in the ChatML form when the
    /// tokenizer knows its marks, else in the LLaMA-2 form; set `templates`
    /// afterwards for another.
    ///
    /// # Errors
    /// What [`Llama::load`] and [`Tokenizer::load`] refuse.
    pub fn load(dir: impl AsRef<Path>, options: &LlamaOptions, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let tokenizer = Tokenizer::load(dir)?;
        let templates = if tokenizer.token_to_id("<|im_start|>").is_some() {
            Templates::chatml()?
        } else {
            Templates::llama2()?
        };
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        let llama = Llama::load(dir, options, device)?;
        let writer = match options.layers {
            None => llama.clone(),
            Some(_) => Llama::load(dir, &LlamaOptions::default(), device)?,
        };
        Ok(Self { llama, writer, tokenizer, templates, name })
    }

    /// The same architecture, tokenizer, prompts and writer, with random weights
    /// to run prompts through: the control for what pretraining is worth.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn randomized(&self, seed: u64) -> Result<Self> {
        let llama = Llama::random(self.llama.config(), seed, self.llama.device())?;
        Ok(Self { llama, ..self.clone() })
    }
}
