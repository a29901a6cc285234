//! A model on one backend: forward and backward passes of batches.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::Tensor;
use glta_kernels::{Backend, Heads, Linear, Matrix, Next, Norm, Sequences};

use crate::config::LlamaConfig;
use crate::error::{Error, Result};
use crate::layer::{Activations, DecoderLayer, Pass, heads};
use crate::rotary::RotaryCache;
use crate::selected::Selected;

/// Weights of a model on a backend.
#[derive(Debug)]
pub(crate) struct Weights<B: Backend> {
    /// The embedding table, on the host.
    pub(crate) table: Arc<Matrix>,
    pub(crate) layers: Vec<DecoderLayer<B>>,
    pub(crate) norm: B::Norm,
    /// The output layer; `None` if the checkpoint has none.
    pub(crate) lm_head: Option<B::Linear>,
}

#[derive(Debug)]
pub(crate) struct Network<B: Backend> {
    pub(crate) config: LlamaConfig,
    pub(crate) backend: B,
    embedding: B::Embedding,
    weights: Weights<B>,
    rotary: RotaryCache<B>,
    embedding_rms: OnceLock<f32>,
    /// Decoders by their number of texts; the last one was used last.
    decoders: Mutex<Vec<(usize, B::Decoder)>>,
}

/// Number of decoders that are kept.
const DECODERS: usize = 8;
/// Launches of a decoding step are for at least this number of keys.
const DECODED: usize = 256;

/// The tensors of the forward pass to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Inputs,
    Activations,
}

/// Tensors of the forward pass that the backward pass uses.
pub(crate) struct Tape<B: Backend> {
    /// Input of every layer, and the output of the last layer, `(tokens, hidden)`.
    inputs: Vec<Tensor>,
    /// Activations of every layer; empty if the backward pass recomputes them.
    activations: Vec<Activations<B>>,
}

impl<B: Backend> Network<B> {
    /// Creates a model. `config` must have the number of layers of `weights`.
    pub(crate) fn new(mut config: LlamaConfig, weights: Weights<B>, backend: B) -> Result<Self> {
        backend.check(heads(&config))?;
        if let Some(window) = config.sliding_window.as_ref().map(|window| window.tokens)
            && backend.check(Heads { window: Some(window), ..heads(&config) }).is_err()
        {
            // Within the window, sliding-window attention equals full attention.
            config.sliding_window = None;
            config.max_position_embeddings = config.max_position_embeddings.min(window);
            tracing::warn!(
                "this device has no attention windows: texts are limited to the window of the \
                 model, {window} tokens"
            );
        }
        let embedding = backend.embedding(&weights.table)?;
        let rotary = RotaryCache::new(&config, &backend);
        // The first use may be on another thread, with its own stream.
        backend.device().synchronize()?;
        let embedding_rms = OnceLock::new();
        let decoders = Mutex::default();
        Ok(Self { config, backend, embedding, weights, rotary, embedding_rms, decoders })
    }

    /// Returns the number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.weights.layers.len()
    }

    /// Returns the size of the weights in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let Weights { table, layers, norm, lm_head } = &self.weights;
        let table = if self.config.tie_word_embeddings { 0 } else { table.resident_bytes() };
        layers.iter().map(DecoderLayer::resident_bytes).sum::<usize>()
            + lm_head.as_ref().map_or(0, Linear::resident_bytes)
            + table
            + norm.resident_bytes()
    }

    /// Returns the root mean square of the embedding table.
    pub(crate) fn embedding_rms(&self) -> f32 {
        *self.embedding_rms.get_or_init(|| {
            let LlamaConfig { vocab_size, hidden_size, .. } = self.config;
            let mut row = vec![0.0; hidden_size];
            let mut sum = 0.0f64;
            for id in 0..vocab_size {
                self.weights.table.dense_row(id, &mut row);
                sum += row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            }
            (sum / (vocab_size * hidden_size) as f64).sqrt() as f32
        })
    }

    /// Returns the embeddings of token ids, `(len, hidden)`.
    pub(crate) fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let vocab = self.config.vocab_size;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Input(format!(
                "token id {id} is outside the vocabulary of {vocab}"
            )));
        }
        Ok(self.backend.embed(&self.embedding, ids)?)
    }

    /// Applies the final norm to `(rows, hidden)`. The result is f32.
    pub(crate) fn norm(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.weights.norm.forward(x)?)
    }

    /// Applies the output layer, `(rows, hidden)` to `(rows, vocab)` f32.
    pub(crate) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.lm_head()?.forward_f32(x)?)
    }

    /// Computes the backward pass of [`Self::logits`], `(rows, vocab)` to `(rows, hidden)` f32.
    pub(crate) fn logits_backward(&self, d_logits: &Tensor) -> Result<Tensor> {
        Ok(self.lm_head()?.backward_f32(d_logits)?)
    }

    fn lm_head(&self) -> Result<&B::Linear> {
        self.weights.lm_head.as_ref().ok_or_else(|| {
            Error::Input(
                "this checkpoint has no output layer (lm_head): it turns texts into hidden \
                 states and writes none"
                    .into(),
            )
        })
    }

    /// Number of positions of the sequences, if the model has them.
    fn positions(&self, sequences: &Sequences) -> Result<usize> {
        let needed = sequences.context();
        let context = self.config.max_position_embeddings;
        if needed > context {
            return Err(Error::Input(format!(
                "a sequence of {needed} tokens, but the model's context is {context} \
                 (`max_position_embeddings`)"
            )));
        }
        Ok(needed)
    }

    fn tokens(&self, sequences: &Arc<Sequences>) -> Result<B::Tokens> {
        let needed = self.positions(sequences)?;
        Ok(self.backend.tokens(sequences, &self.rotary.table(needed)?)?)
    }

    fn pass<'a>(
        &'a self,
        layer: usize,
        tokens: &'a B::Tokens,
        shared: Option<&'a B::Keys>,
    ) -> Pass<'a, B> {
        let window = self.config.sliding_window.as_ref();
        let window = window.filter(|window| window.layers.get(layer) == Some(&true));
        let heads = Heads { window: window.map(|window| window.tokens), ..heads(&self.config) };
        Pass { backend: &self.backend, heads, tokens, shared, layer }
    }

    /// Runs the layers and the final norm on packed embeddings.
    /// With `selected`, the result has only the rows of these tokens.
    pub(crate) fn forward(
        &self,
        mut x: Tensor,
        sequences: &Arc<Sequences>,
        prefix: Option<&B::Keys>,
        keep: Keep,
        selected: Option<&Selected>,
    ) -> Result<(Tensor, Tape<B>)> {
        let tokens = self.tokens(sequences)?;
        let mut tape = Tape { inputs: Vec::new(), activations: Vec::new() };
        if let Some(selected) = selected.filter(|_| self.layers() == 0) {
            x = selected.select(&x)?;
        }
        for (i, layer) in self.weights.layers.iter().enumerate() {
            let pass = self.pass(i, &tokens, prefix);
            let a = layer.activations(&x, &pass, self.in_last(i, selected))?;
            let y = layer.output(&a, &pass)?;
            if keep != Keep::Nothing {
                tape.inputs.push(x);
            }
            if keep == Keep::Activations {
                tape.activations.push(a);
            }
            x = y;
        }
        let out = self.norm(&x)?;
        if keep != Keep::Nothing {
            tape.inputs.push(x);
        }
        Ok((out, tape))
    }

    /// Returns the selected tokens if layer `i` is the last one. The other layers compute all
    /// tokens.
    fn in_last<'a>(&self, i: usize, selected: Option<&'a Selected>) -> Option<&'a Selected> {
        selected.filter(|_| i + 1 == self.layers())
    }

    /// Computes the gradient at the packed embeddings, given the gradient at the output of
    /// [`Self::forward`] with the same `selected`.
    pub(crate) fn backward(
        &self,
        tape: &Tape<B>,
        sequences: &Arc<Sequences>,
        prefix: Option<&B::Keys>,
        selected: Option<&Selected>,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let tokens = self.tokens(sequences)?;
        let last = tape
            .inputs
            .last()
            .ok_or_else(|| Error::Input("backward of a pass that kept nothing".into()))?;
        let mut dx = self.weights.norm.backward(last, dy, None)?;
        for (i, layer) in self.weights.layers.iter().enumerate().rev() {
            let x = &tape.inputs[i];
            let (pass, selected) = (self.pass(i, &tokens, prefix), self.in_last(i, selected));
            let again;
            let a = match tape.activations.get(i) {
                Some(a) => a,
                None => {
                    again = layer.activations(x, &pass, selected)?;
                    &again
                }
            };
            dx = layer.backward(x, a, &dx, &pass, selected)?;
        }
        match selected.filter(|_| self.layers() == 0) {
            Some(selected) => Ok(selected.spread(&dx)?),
            None => Ok(dx),
        }
    }

    /// Runs the first `layers` layers on packed embeddings and returns the states before the final
    /// norm. Appends keys and values to the caches of the sequences, which continue the prefix.
    pub(crate) fn extend(
        &self,
        mut x: Tensor,
        sequences: &Arc<Sequences>,
        prefix: Option<&B::Keys>,
        layers: usize,
        keys: Vec<&mut B::Keys>,
    ) -> Result<Tensor> {
        let tokens = self.tokens(sequences)?;
        let mut caches = self.backend.caches(sequences, keys)?;
        for (i, layer) in self.weights.layers[..layers].iter().enumerate() {
            x = layer.extend(&x, &self.pass(i, &tokens, prefix), &mut caches)?;
        }
        Ok(x)
    }

    /// Scores of the next token for states before the final norm, `(rows, vocab)` f32.
    pub(crate) fn scores(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.backend.scores(&self.weights.norm, self.lm_head()?, x)?)
    }

    /// Decodes one token of each sequence, and returns the most likely next ones. `None` if the
    /// backend cannot choose tokens of this model; the caches are then unchanged.
    pub(crate) fn decode(
        &self,
        ids: &[u32],
        sequences: &Sequences,
        prefix: Option<&B::Keys>,
        keys: Vec<&mut B::Keys>,
    ) -> Result<Option<Vec<u32>>> {
        if self.weights.layers.iter().any(|layer| layer.head_norms.is_some()) {
            if self.backend.device().is_cuda() {
                tracing::debug!("decoding without a graph: the model has norms of heads");
            }
            return Ok(None);
        }
        let decoders = || self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = {
            let mut decoders = decoders();
            let at = decoders.iter().position(|(texts, _)| *texts == ids.len());
            at.map(|at| decoders.remove(at).1)
        };
        let mut decoder = match kept {
            Some(decoder) => decoder,
            None => match self.backend.decoder(ids.len())? {
                Some(decoder) => decoder,
                None => return Ok(None),
            },
        };
        let needed = self.positions(sequences)?;
        let most = self.config.max_position_embeddings;
        let context = needed.next_power_of_two().max(DECODED).min(most);
        let rotary = self.rotary.table(context)?;
        let (embedding, shared) = (&self.embedding, prefix);
        let next = Next { ids, sequences, embedding, rotary: &rotary, keys, shared, context };
        let next = self.backend.decode(&mut decoder, next, |mut x, tokens, caches| {
            for (i, layer) in self.weights.layers.iter().enumerate() {
                x = layer.extend(&x, &self.pass(i, tokens, prefix), caches)?;
                self.backend.end_stage();
            }
            self.scores(&x)
        })?;
        let mut decoders = decoders();
        if decoders.len() == DECODERS {
            decoders.remove(0);
        }
        decoders.push((ids.len(), decoder));
        Ok(Some(next))
    }
}
