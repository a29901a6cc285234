//! Estimates the work of the language model before the experiment starts.

use std::fmt;

use glta_align::LanguageModel;
use glta_core::stream;
use glta_data::{Dataset, Split};

use super::prompts::{Prompts, divide};
use crate::Result;
use crate::config::ExperimentConfig;

/// Work of the language model for the rows of `run.llm_path`: all seeds, with pretrained and with
/// random weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LlmPathCost {
    /// Number of prompts whose hidden states are computed.
    pub prompts: u64,
    /// Number of tokens of the prompts in `prompts`.
    pub prompt_tokens: u64,
    /// Number of titles whose likelihood is computed.
    pub titles: u64,
    /// Number of tokens of the titles in `titles` and of the prompts before them.
    pub title_tokens: u64,
    /// Total number of floating-point operations.
    pub flop: f64,
}

impl LlmPathCost {
    /// Estimates the work for an experiment. The prompts of the first seed are tokenised. For the
    /// titles, the number of candidates and the mean length of all titles are used.
    ///
    /// # Errors
    /// Returns an error if the split cannot be made, or if the tokenizer cannot represent a text.
    pub fn of(
        dataset: &Dataset,
        config: &ExperimentConfig,
        language: &LanguageModel,
    ) -> Result<Self> {
        let (path, seed) = (&config.llm_path, config.run.seeds.first().copied().unwrap_or(0));
        let split = Split::new(dataset, &config.protocol.split_config(seed))?;
        let prompts = Prompts::new(language, dataset, &config.protocol.texts, path)?;
        let (mut read, mut read_tokens, mut before, mut attended) = (0, 0, 0, 0.0);
        let users = dataset.n_users() as u32;
        for user in 0..users {
            let mut rng = stream(seed, "llm path", &[u64::from(user)]);
            let items = split.train.items(user);
            let mut add = |ids: Vec<u32>| {
                read += 1;
                read_tokens += ids.len() as u64;
                attended += (ids.len() as f64).powi(2) / 2.0;
                ids.len() as u64
            };
            if let Some((shown, _)) = divide(items, &mut rng) {
                add(prompts.history(&shown, &mut rng)?);
            }
            before += add(prompts.history(items, &mut rng)?);
        }
        let of_items: usize = (0..dataset.n_items() as u32).map(|i| prompts.title(i).len()).sum();
        let mean = of_items as f64 / dataset.n_items().max(1) as f64;
        let new = split.train.item_degrees().iter().filter(|&&degree| degree == 0).count();
        let each = path.candidates.min(dataset.n_items()) + path.new_items.min(new);
        let titles = u64::from(users) * each as u64;
        let in_titles = titles as f64 * mean;

        let llama = language.llama.config();
        let (hidden, heads) = (llama.hidden_size, llama.num_attention_heads * llama.head_dim);
        let keys = llama.num_key_value_heads * llama.head_dim;
        let layer = hidden * (2 * heads + 2 * keys) + 3 * hidden * llama.intermediate_size;
        let layers = llama.num_hidden_layers as f64;
        // A weight takes 2 operations, a multiplication and an addition. A token attends to all
        // before it.
        let of_tokens = |tokens: f64| 2.0 * layers * layer as f64 * tokens;
        let attention = |pairs: f64| 4.0 * layers * heads as f64 * pairs;
        let context = before as f64 / f64::from(users.max(1));
        let flop = of_tokens(read_tokens as f64 + before as f64 + in_titles)
            + attention(attended * 1.5 + in_titles * context)
            + 2.0 * (hidden * llama.vocab_size) as f64 * in_titles;
        // Every seed runs with pretrained and with random weights.
        let runs = 2 * config.run.seeds.len() as u64;
        Ok(Self {
            prompts: runs * read,
            prompt_tokens: runs * read_tokens,
            titles: runs * titles,
            title_tokens: runs * (before + in_titles as u64),
            flop: runs as f64 * flop,
        })
    }

    /// Returns the duration in minutes at a rate of `tflops` TFLOP/s.
    pub fn minutes(&self, tflops: f64) -> f64 {
        self.flop / (tflops * 1e12 * 60.0)
    }
}

impl fmt::Display for LlmPathCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hidden states of {} prompts with {} tokens, likelihoods of {} titles with {} tokens, \
             {:.1e} FLOP in total",
            self.prompts, self.prompt_tokens, self.titles, self.title_tokens, self.flop
        )
    }
}
