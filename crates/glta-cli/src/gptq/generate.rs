//! `glta gptq generate`: continues prompts.

use std::time::Instant;

use clap::Args;
use glta_llm::{GenerateEvent, GenerateOptions, Tokenizer};

use super::model::LoadArgs;
use crate::output::{errln, outln};
use crate::{Result, interrupt};

/// Flags of `glta gptq generate`.
#[derive(Debug, Clone, Args)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Text to continue; the flag may be repeated, and all prompts run as one batch.
    #[arg(long, required = true, help_heading = "Text")]
    prompt: Vec<String>,
    /// Maximum number of generated tokens per prompt.
    #[arg(long, default_value_t = 64, help_heading = "Text")]
    max_new_tokens: usize,
    /// Temperature of the sampling; 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0, help_heading = "Sampling")]
    temperature: f32,
    /// Number of most likely tokens from which the next one is sampled; 0 means all.
    #[arg(long, default_value_t = 0, help_heading = "Sampling")]
    top_k: usize,
    /// Total probability of the most likely tokens from which the next one is sampled; 1 means all.
    #[arg(long, default_value_t = 1.0, help_heading = "Sampling")]
    top_p: f32,
    /// Factor that lowers the scores of tokens that already occurred; 1 changes nothing.
    #[arg(long, default_value_t = 1.0, help_heading = "Sampling")]
    repetition_penalty: f32,
    /// Text that ends an answer; the flag may be repeated.
    #[arg(long, help_heading = "Text")]
    stop: Vec<String>,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 0, help_heading = "Sampling")]
    seed: u64,
}

impl GenerateArgs {
    fn options(&self) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            stop: self.stop.clone(),
            seed: self.seed,
            ..Default::default()
        }
    }
}

pub(super) fn generate(args: &GenerateArgs) -> Result<()> {
    let dir = args.load.model.dir()?;
    let model = args.load.load(&dir)?;
    let tokenizer = Tokenizer::load(&dir)?;
    let start = Instant::now();
    let mut tokens = 0;
    let texts = model.generate_text_with(
        &tokenizer,
        &args.prompt,
        &args.options(),
        &mut |event: &GenerateEvent| {
            tokens += usize::from(event.token.is_some());
            interrupt::answer()
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    for (prompt, text) in args.prompt.iter().zip(texts) {
        outln!("{prompt}{text}\n");
    }
    if !args.load.model.quiet {
        errln!("{tokens} tokens in {seconds:.2} s: {:.1} tokens/s", tokens as f64 / seconds);
    }
    Ok(())
}
