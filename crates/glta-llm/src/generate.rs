use crate::cache::SequenceKeys;
use crate::error::{Error, Result};
use crate::model::{Llama, Prefix};
use crate::sample::next_token;
use crate::tokenizer::Tokenizer;
use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::ControlFlow;

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
    /// Texts that end a text and are cut off with what follows
    /// ([`Llama::generate_text`] only).
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
        let wrong = |field, message: String| Err(Error::Config { field, message });
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

/// One step of [`Llama::generate`] for one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerateEvent {
    /// Index of the prompt.
    pub prompt: usize,
    /// The new token; `None` where the text ended without one.
    pub token: Option<u32>,
    /// Whether this prompt is done.
    pub finished: bool,
    /// Prompts done so far.
    pub prompts_done: usize,
    /// Prompts in all.
    pub prompts: usize,
}

/// Prompt tokens computed in one step, so that a long queue of prompts does
/// not need activations for all of them at once.
const STEP_TOKENS: usize = 2048;
/// The shared start of the prompts is cached in whole panels of keys, which
/// leaves every bit of the results as it is without sharing.
const SHARED_UNIT: usize = 32;

/// A text being generated.
struct Running {
    prompt: usize,
    /// Prompt and generated tokens.
    ids: Vec<u32>,
    prompt_len: usize,
    /// Tokens whose keys are cached, the shared ones included.
    cached: usize,
    rng: ChaCha8Rng,
}

impl Llama {
    /// Continues every prompt (token ids); returns the new tokens only.
    ///
    /// Prompts are worked on together, longest first; a finished one makes
    /// room for the next at once, and what all prompts start with is computed
    /// once. A prompt's result does not depend on the others.
    ///
    /// # Errors
    /// Invalid options, stop texts (which need [`Self::generate_text`]), an
    /// empty prompt, one longer than the context or with unknown ids;
    /// [`Error::Cancelled`] when `progress` breaks.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        progress: &mut dyn FnMut(&GenerateEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>> {
        if !options.stop.is_empty() {
            return Err(Error::Config {
                field: "stop",
                message: "stop texts need a tokenizer: use generate_text".into(),
            });
        }
        self.generate_until(prompts, options, &|_| Ok(false), progress)
    }

    /// [`Self::generate`] on texts: prompts are encoded with special tokens,
    /// results are decoded and end before the first stop text.
    ///
    /// # Errors
    /// As there, and texts that the tokenizer refuses.
    pub fn generate_text(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[impl AsRef<str>],
        options: &GenerateOptions,
        progress: &mut dyn FnMut(&GenerateEvent) -> ControlFlow<()>,
    ) -> Result<Vec<String>> {
        let ids = prompts
            .iter()
            .map(|p| tokenizer.encode(p.as_ref(), true))
            .collect::<Result<Vec<_>>>()?;
        let first_stop =
            |text: &str| options.stop.iter().filter_map(|s| text.find(s.as_str())).min();
        let stops = |new: &[u32]| {
            if options.stop.is_empty() {
                return Ok(false);
            }
            Ok(first_stop(&tokenizer.decode(new)?).is_some())
        };
        let results = self.generate_until(&ids, options, &stops, progress)?;
        results
            .iter()
            .map(|new| {
                let mut text = tokenizer.decode(new)?;
                if let Some(end) = first_stop(&text) {
                    text.truncate(end);
                }
                Ok(text)
            })
            .collect()
    }

    fn generate_until(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        stops: &dyn Fn(&[u32]) -> Result<bool>,
        progress: &mut dyn FnMut(&GenerateEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>> {
        options.validate()?;
        let config = self.config();
        let context = config.max_position_embeddings;
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() || prompt.len() > context {
                return Err(Error::Input(format!(
                    "prompt {i} has {} tokens, expected 1 to {context}",
                    prompt.len()
                )));
            }
        }
        let mut results = vec![Vec::new(); prompts.len()];
        if options.max_new_tokens == 0 || prompts.is_empty() {
            return Ok(results);
        }
        let shared = shared_start(prompts);
        let prefix = self.prefix(&prompts[0][..shared])?;
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(prompts[i].len()));
        let mut waiting: VecDeque<usize> = order.into();
        let mut running: Vec<Running> = Vec::new();
        let mut caches: Vec<SequenceKeys> = Vec::new();
        let mut done = 0;
        while !(running.is_empty() && waiting.is_empty()) {
            let mut step_tokens = running.len();
            while let Some(&next) = waiting.front() {
                let fits = step_tokens + prompts[next].len() - shared <= STEP_TOKENS;
                if running.len() >= options.batch_size || !(fits || step_tokens == 0) {
                    break;
                }
                waiting.pop_front();
                step_tokens += prompts[next].len() - shared;
                let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
                rng.set_stream(next as u64);
                running.push(Running {
                    prompt: next,
                    ids: prompts[next].clone(),
                    prompt_len: prompts[next].len(),
                    cached: shared,
                    rng,
                });
                let mut keys = SequenceKeys::new(&self.inner, false);
                keys.reserve(prompts[next].len() - shared + options.max_new_tokens.min(256))?;
                caches.push(keys);
            }
            let logits = self.step(&running, &prefix, &mut caches)?;
            let mut finished = Vec::new();
            for (row, mut logits) in logits.into_iter().enumerate() {
                let text = &mut running[row];
                text.cached = text.ids.len();
                let token = next_token(&mut logits, &text.ids, options, &mut text.rng);
                let ends = options.stop_ids.contains(&token)
                    || (!options.ignore_eos && config.eos_token_ids.contains(&token));
                let mut last = ends;
                if !ends {
                    text.ids.push(token);
                    let new = &text.ids[text.prompt_len..];
                    last = new.len() == options.max_new_tokens
                        || text.ids.len() > context
                        || stops(new)?;
                }
                if last {
                    finished.push(row);
                    done += 1;
                }
                let event = GenerateEvent {
                    prompt: text.prompt,
                    token: (!ends).then_some(token),
                    finished: last,
                    prompts_done: done,
                    prompts: prompts.len(),
                };
                if progress(&event).is_break() {
                    return Err(Error::Cancelled);
                }
            }
            for row in finished.into_iter().rev() {
                let text = running.swap_remove(row);
                results[text.prompt] = text.ids[text.prompt_len..].to_vec();
                caches.swap_remove(row);
            }
        }
        Ok(results)
    }

    /// Computes the tokens that are not cached yet; returns the scores that
    /// follow each text.
    fn step(
        &self,
        running: &[Running],
        prefix: &Prefix,
        caches: &mut [SequenceKeys],
    ) -> Result<Vec<Vec<f32>>> {
        let mut starts = vec![0];
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for text in running {
            ids.extend_from_slice(&text.ids[text.cached..]);
            positions.extend(text.cached as u32..text.ids.len() as u32);
            starts.push(ids.len());
        }
        let model = &self.inner;
        model.enter_for(ids.len(), || {
            let prefix = Some(prefix).filter(|p| !p.is_empty());
            let (x, layers) = (model.embed(&ids)?, model.layers.len());
            let mut caches: Vec<_> = caches.iter_mut().collect();
            let x = model.forward_cached(x, &starts, &positions, prefix, layers, &mut caches)?;
            let last: Vec<u32> = starts[1..].iter().map(|&end| end as u32 - 1).collect();
            let last = match last.len() == ids.len() {
                true => x,
                false => x.index_select(&Tensor::new(last, x.device())?, 0)?,
            };
            Ok(model.logits(&model.norm.forward(&last)?)?.to_vec2()?)
        })
    }
}

/// Tokens that all prompts start with, at least one token left over each, in
/// whole units; 0 for a single prompt.
fn shared_start(prompts: &[Vec<u32>]) -> usize {
    let [first, rest @ ..] = prompts else {
        return 0;
    };
    if rest.is_empty() {
        return 0;
    }
    let shared = rest.iter().fold(first.len() - 1, |shared, prompt| {
        let same = first.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        shared.min(same).min(prompt.len() - 1)
    });
    shared / SHARED_UNIT * SHARED_UNIT
}
