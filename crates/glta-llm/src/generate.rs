use std::collections::VecDeque;

use glta_core::{Progress, Silent, report, stream};
use glta_kernels::Sequences;
use rand_chacha::ChaCha8Rng;

use crate::erased::AnyKeys;
use crate::error::{Error, Result};
use crate::model::{Llama, Prefix};
use crate::options::GenerateOptions;
use crate::sample::next_token;
use crate::tokenizer::Tokenizer;

/// A predicate that ends a text, given the ids of the prompt and the new ids.
type Stops<'a> = dyn Fn(&[u32], &[u32]) -> Result<bool> + 'a;

/// Progress of [`Llama::generate`]: one step for one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerateEvent {
    /// Index of the prompt.
    pub prompt: usize,
    /// The new token; `None` if the text ended without a new token.
    pub token: Option<u32>,
    /// Whether the prompt is finished.
    pub finished: bool,
    /// Number of finished prompts.
    pub prompts_done: usize,
    /// Total number of prompts.
    pub prompts: usize,
}

/// Maximum number of prompt tokens per step, which limits the memory for the activations of long
/// prompts.
const STEP_TOKENS: usize = 2048;
/// Number of tokens in a panel of keys. The shared start of the prompts is cached in whole panels,
/// so that sharing does not change the results.
const SHARED_UNIT: usize = 32;

/// A text that is being generated.
struct Running {
    prompt: usize,
    /// Ids of the prompt and of the generated tokens.
    ids: Vec<u32>,
    prompt_len: usize,
    /// Number of tokens in the cache, including shared tokens.
    cached: usize,
    rng: ChaCha8Rng,
}

impl Llama {
    /// Continues each prompt (token ids) and returns the new tokens.
    ///
    /// Prompts run in batches, longest first. When a prompt is finished, the next one takes its
    /// place. Tokens that all prompts share at their start are computed once. The result of a
    /// prompt does not depend on the other prompts.
    ///
    /// # Errors
    /// Returns an error for invalid options, stop texts (which need [`Self::generate_text`]), an
    /// empty prompt, a prompt that is longer than the context, or unknown ids.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<u32>>> {
        self.generate_with(prompts, options, &mut Silent)
    }

    /// Generates tokens like [`Self::generate`] and calls `progress` for each token.
    ///
    /// # Errors
    /// Returns the errors of [`Self::generate`], and [`Error::Cancelled`].
    pub fn generate_with(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        progress: &mut dyn Progress<GenerateEvent>,
    ) -> Result<Vec<Vec<u32>>> {
        if !options.stop.is_empty() {
            return Err(Error::Config {
                field: "stop",
                problem: "stop texts need a tokenizer: use generate_text".into(),
            });
        }
        self.generate_until(prompts, options, &[], &|_, _| Ok(false), progress)
    }

    /// Generates texts like [`Self::generate`]. Encodes the prompts with special tokens, and
    /// decodes the results up to the first stop text.
    ///
    /// ```
    /// use glta_llm::{Device, GenerateOptions, Llama, LlamaOptions, Tokenizer};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let tokenizer = Tokenizer::load(dir)?;
    /// let options = GenerateOptions { max_new_tokens: 4, ..Default::default() };
    /// let texts = llama.generate_text(&tokenizer, &["A customer has"], &options)?;
    /// assert_eq!(texts.len(), 1);
    /// # Ok::<(), glta_llm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`Self::generate`], and an error for a text that the tokenizer
    /// rejects.
    pub fn generate_text(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[impl AsRef<str>],
        options: &GenerateOptions,
    ) -> Result<Vec<String>> {
        self.generate_text_with(tokenizer, prompts, options, &mut Silent)
    }

    /// Generates texts like [`Self::generate_text`] and calls `progress` for each token.
    ///
    /// # Errors
    /// Returns the errors of [`Self::generate_text`], and [`Error::Cancelled`].
    pub fn generate_text_with(
        &self,
        tokenizer: &Tokenizer,
        prompts: &[impl AsRef<str>],
        options: &GenerateOptions,
        progress: &mut dyn Progress<GenerateEvent>,
    ) -> Result<Vec<String>> {
        let ids = prompts
            .iter()
            .map(|p| tokenizer.encode(p.as_ref(), true))
            .collect::<Result<Vec<_>>>()?;
        let until =
            |before: &[u32], new: &[u32]| tokenizer.decode_up_to(before, new, &options.stop);
        let stops = |before: &[u32], new: &[u32]| Ok(until(before, new)?.is_some());
        // If the model's files do not name an end token, the tokenizer's files may.
        let results = self.generate_until(&ids, options, tokenizer.eos_ids(), &stops, progress)?;
        ids.iter()
            .zip(&results)
            .map(|(before, new)| match until(before, new)? {
                Some(text) => Ok(text),
                None => tokenizer.decode_continuation(before, new),
            })
            .collect()
    }

    fn generate_until(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        default_ends: &[u32],
        stops: &Stops<'_>,
        progress: &mut dyn Progress<GenerateEvent>,
    ) -> Result<Vec<Vec<u32>>> {
        options.validate()?;
        let config = self.config();
        let context = config.max_position_embeddings;
        let ends = match &config.eos_token_ids[..] {
            [] => default_ends,
            own => own,
        };
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() || prompt.len() > context {
                return Err(Error::Input(format!(
                    "prompt {i} has {} tokens, expected 1 to {context}, the model's context \
                     (`max_position_embeddings`)",
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
        let mut caches: Vec<Box<dyn AnyKeys>> = Vec::new();
        let mut done = 0;
        let greedy = options.is_greedy();
        if !greedy && self.device().is_cuda() {
            tracing::debug!("decoding without a graph: the host draws the tokens");
        }
        while !(running.is_empty() && waiting.is_empty()) {
            let mut step_tokens = running.len();
            while let Some(&next) = waiting.front() {
                let fits = step_tokens + prompts[next].len() - shared <= STEP_TOKENS;
                if running.len() >= options.batch_size || !(fits || step_tokens == 0) {
                    break;
                }
                waiting.pop_front();
                step_tokens += prompts[next].len() - shared;
                running.push(Running {
                    prompt: next,
                    ids: prompts[next].clone(),
                    prompt_len: prompts[next].len(),
                    cached: shared,
                    rng: stream(options.seed, "generate", &[next as u64]),
                });
                let mut keys = self.network.keys(false);
                keys.reserve(prompts[next].len() - shared + options.max_new_tokens.min(256))?;
                caches.push(keys);
            }
            let chosen = self.step(&running, &prefix, &mut caches, greedy)?;
            let mut finished = Vec::new();
            for (row, chosen) in chosen.into_iter().enumerate() {
                let text = &mut running[row];
                text.cached = text.ids.len();
                let token = match chosen {
                    Chosen::Id(id) => id,
                    Chosen::By(mut scores) => {
                        next_token(&mut scores, &text.ids, options, &mut text.rng)
                    }
                };
                let end = options.stop_ids.contains(&token)
                    || (!options.ignore_eos && ends.contains(&token));
                let mut last = end;
                if !end {
                    text.ids.push(token);
                    let (before, new) = text.ids.split_at(text.prompt_len);
                    last = new.len() == options.max_new_tokens
                        || text.ids.len() > context
                        || stops(before, new)?;
                }
                if last {
                    finished.push(row);
                    done += 1;
                }
                let event = GenerateEvent {
                    prompt: text.prompt,
                    token: (!end).then_some(token),
                    finished: last,
                    prompts_done: done,
                    prompts: prompts.len(),
                };
                report(progress, &event)?;
            }
            for row in finished.into_iter().rev() {
                let text = running.swap_remove(row);
                results[text.prompt] = text.ids[text.prompt_len..].to_vec();
                caches.swap_remove(row);
            }
        }
        Ok(results)
    }

    /// Computes the tokens that are not in the caches yet, and returns each text's next token or
    /// its scores. The device may choose the tokens if `greedy`.
    fn step(
        &self,
        running: &[Running],
        prefix: &Prefix,
        caches: &mut [Box<dyn AnyKeys>],
        greedy: bool,
    ) -> Result<Vec<Chosen>> {
        let ids: Vec<u32> =
            running.iter().flat_map(|text| &text.ids[text.cached..]).copied().collect();
        let lengths: Vec<usize> = running.iter().map(|t| t.ids.len() - t.cached).collect();
        let sequences = Sequences::new(&lengths, |row| running[row].cached);
        let prefix = Some(&prefix.keys);
        if greedy && lengths.iter().all(|&len| len == 1) {
            let caches = caches.iter_mut().map(|keys| &mut **keys).collect();
            if let Some(ids) = self.network.next_ids(&ids, &sequences, prefix, caches)? {
                return Ok(ids.into_iter().map(Chosen::Id).collect());
            }
        }
        let caches = caches.iter_mut().map(|keys| &mut **keys).collect();
        let scores = self.network.next_logits(&ids, sequences, prefix, caches)?;
        Ok(scores.to_vec2()?.into_iter().map(Chosen::By).collect())
    }
}

/// The next token of a text.
enum Chosen {
    Id(u32),
    /// Scores of all tokens.
    By(Vec<f32>),
}

/// Returns the number of tokens that all prompts share at their start, rounded down to a multiple
/// of [`SHARED_UNIT`]. At least one token of each prompt is left over. Returns 0 for a single
/// prompt.
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
