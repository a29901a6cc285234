use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use glta_core::stream;
use glta_kernels::{Arena, Backend, Cuda, Host, Matrix, Precision, Sequences, SimdLevel};
use rand_distr::{Distribution, Normal};

use crate::config::LlamaConfig;
use crate::erased::{AnyKeys, AnyNetwork};
use crate::error::{Error, Result};
use crate::layer::{DecoderLayer, HeadNorms};
use crate::load::Loader;
use crate::network::{Keep, Network, Weights};
use crate::options::LlamaOptions;

/// Options of [`Llama::hidden_states`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardOptions<'a> {
    /// Tokens in front of every row, computed once. Default none.
    pub prefix: Option<&'a Prefix>,
    /// Whether to keep only the input of each layer for the backward pass, which then recomputes
    /// the activations. This saves memory and costs about one more forward pass. Default `false`.
    pub recompute: bool,
}

/// Keys and values, in every layer, of tokens that many prompts start with.
///
/// A clone shares the memory of the original. A prefix belongs to the model that created it.
#[derive(Clone, Debug)]
pub struct Prefix {
    pub(crate) keys: Arc<dyn AnyKeys>,
}

impl Prefix {
    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether the prefix is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frozen LLaMA. The weights are not trained, but gradients flow through the model to the input
/// embeddings.
///
/// A clone shares the weights of the original. Threads can share a model.
#[derive(Clone, Debug)]
pub struct Llama {
    pub(crate) network: Arc<dyn AnyNetwork>,
}

impl Llama {
    /// Loads the folder of a checkpoint: `config.json`, safetensors weights (quantised or plain),
    /// and `quantize_config.json` if it exists.
    ///
    /// The files are memory-mapped while they are read and must not be changed during that time.
    /// Quantised weights stay packed in memory.
    ///
    /// Loading onto a CUDA device disables event tracking of that [`Device`]. [`Cuda::new`]
    /// explains the effect on other streams.
    ///
    /// # Errors
    /// Returns an error for missing or malformed files; for tensors that are missing, unused, not
    /// finite, or of the wrong shape or dtype; for unsupported options; and for a device that does
    /// not exist or is not supported.
    pub fn load(dir: impl AsRef<Path>, options: &LlamaOptions, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        options.check_simd()?;
        if device.is_cpu() {
            return Self::load_on(dir, options, Host::new(options.simd, options.precision)?);
        }
        Self::load_on(dir, options, Cuda::new(device, options.precision)?)
    }

    /// Loads a checkpoint like [`Self::load`], onto a backend. Ignores `options.simd` and
    /// `options.precision`.
    ///
    /// # Errors
    /// Returns the errors of [`Self::load`].
    pub fn load_on<B: Backend>(
        dir: impl AsRef<Path>,
        options: &LlamaOptions,
        backend: B,
    ) -> Result<Self> {
        let dir = dir.as_ref();
        let mut config = LlamaConfig::from_dir(dir)?;
        let layers = kept_layers(&config, options)?;
        let loader = Loader::new(dir, &config, &backend)?;
        let weights = backend.run(None, || loader.load(layers))?;
        config.num_hidden_layers = layers;
        Self::new(config, weights, backend)
    }

    /// Creates a model with normally distributed f32 weights of standard deviation
    /// [`LlamaConfig::initializer_range`]. All norm weights are one.
    ///
    /// # Errors
    /// Returns an error for an invalid configuration, or for a device that does not exist or is not
    /// supported.
    pub fn random(config: &LlamaConfig, seed: u64, device: &Device) -> Result<Self> {
        if device.is_cpu() {
            return Self::random_on(config, seed, Host::new(None, Precision::F32)?);
        }
        Self::random_on(config, seed, Cuda::new(device, Precision::F32)?)
    }

    /// Creates a random model like [`Self::random`], on a backend.
    ///
    /// # Errors
    /// Returns the errors of [`Self::random`].
    pub fn random_on<B: Backend>(config: &LlamaConfig, seed: u64, backend: B) -> Result<Self> {
        config.validate()?;
        let config = LlamaConfig {
            quantization: None,
            attention_bias: false,
            output_bias: false,
            mlp_bias: false,
            ..config.clone()
        };
        let weights = random_weights(&config, seed, &backend)?;
        Self::new(config, weights, backend)
    }

    fn new<B: Backend>(config: LlamaConfig, weights: Weights<B>, backend: B) -> Result<Self> {
        Ok(Self { network: Arc::new(Network::new(config, weights, backend)?) })
    }

    /// Returns the configuration; `num_hidden_layers` is the number of loaded layers.
    pub fn config(&self) -> &LlamaConfig {
        self.network.config()
    }

    /// Returns the device of the weights.
    pub fn device(&self) -> &Device {
        self.network.device()
    }

    /// Returns the size of the weights in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.network.resident_bytes()
    }

    /// Returns the number of bytes that can still be allocated on a GPU; `None` on the CPU.
    ///
    /// # Errors
    /// Returns an error if the device does not answer.
    pub fn free_memory(&self) -> Result<Option<usize>> {
        self.network.free_memory()
    }

    /// Returns the embeddings of token ids, `(len, hidden)` f32. The result is not differentiable.
    ///
    /// # Errors
    /// Returns an error if an id is outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.network.embed(ids)
    }

    /// Returns the root mean square of the token embedding table, a suitable scale for soft tokens.
    pub fn embedding_rms(&self) -> f32 {
        self.network.embedding_rms()
    }

    /// Computes the keys and values of tokens that many prompts start with.
    ///
    /// # Errors
    /// Returns an error if an id is outside the vocabulary, or for more tokens than the model's
    /// context.
    pub fn prefix(&self, ids: &[u32]) -> Result<Prefix> {
        let mut keys = self.network.keys(true);
        if !ids.is_empty() {
            self.network.read(ids, self.config().num_hidden_layers, &mut *keys)?;
        }
        Ok(Prefix { keys: keys.into() })
    }

    /// Computes the hidden states after the final norm, `(batch, seq, hidden)`.
    ///
    /// `embeds: (batch, seq, hidden)`, f32, is right-padded, and `lengths` has the number of tokens
    /// of each row. Padded positions are not computed and are zero in the result. The result of a
    /// row has the same bits whatever the other rows are. If candle tracks `embeds` (a `Var`, or a
    /// tensor computed from one), `backward()` computes its gradient; otherwise no activations are
    /// kept.
    ///
    /// # Errors
    /// Returns an error for wrong shapes, dtypes or lengths, for more tokens than the model's
    /// context, and for a prefix of another model.
    pub fn hidden_states(
        &self,
        embeds: &Tensor,
        lengths: &[usize],
        options: &ForwardOptions,
    ) -> Result<Tensor> {
        self.check_batch(embeds, lengths)?;
        if lengths.is_empty() {
            return Ok(embeds.clone());
        }
        self.states(embeds, lengths, options, None)
    }

    /// Computes the rows of [`Self::hidden_states`] at some positions, `(positions, hidden)`. On
    /// the CPU, they are bit-identical to these rows.
    ///
    /// `positions` are pairs of a row of the batch and a position in this row, all different. The
    /// last layer computes its feed-forward part for these tokens only, which saves most of the
    /// time of a layer if they are few. `embeds`, `lengths`, `options` and gradients are as in
    /// [`Self::hidden_states`].
    ///
    /// ```
    /// use glta_llm::{Device, ForwardOptions, Llama, LlamaOptions};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let prompt = llama.embed(&[1, 20, 30])?.unsqueeze(0)?;
    /// let options = ForwardOptions::default();
    /// let last = llama.hidden_states_at(&prompt, &[3], &[(0, 2)], &options)?;
    /// let all = llama.hidden_states(&prompt, &[3], &options)?;
    /// assert_eq!(last.get(0)?.to_vec1::<f32>()?, all.get(0)?.get(2)?.to_vec1::<f32>()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`Self::hidden_states`], and an error for a position that is outside
    /// its row or occurs twice.
    pub fn hidden_states_at(
        &self,
        embeds: &Tensor,
        lengths: &[usize],
        positions: &[(usize, usize)],
        options: &ForwardOptions,
    ) -> Result<Tensor> {
        self.check_batch(embeds, lengths)?;
        let mut seen = HashSet::new();
        for &(row, at) in positions {
            if lengths.get(row).is_none_or(|&length| at >= length) || !seen.insert((row, at)) {
                return Err(Error::Input(format!(
                    "position {at} of row {row} is outside the batch or occurs twice"
                )));
            }
        }
        if positions.is_empty() {
            return Ok(embeds.flatten(0, 1)?.narrow(0, 0, 0)?);
        }
        self.states(embeds, lengths, options, Some(positions))
    }

    fn states(
        &self,
        embeds: &Tensor,
        lengths: &[usize],
        options: &ForwardOptions,
        positions: Option<&[(usize, usize)]>,
    ) -> Result<Tensor> {
        let shared = options.prefix.map_or(0, Prefix::len);
        let sequences = Sequences::new(lengths, |_| shared);
        let starts = sequences.starts();
        let packed = |&(row, at): &(usize, usize)| (starts[row] + at) as u32;
        let at: Option<Vec<u32>> = positions.map(|all| all.iter().map(packed).collect());
        let _span = tracing::debug_span!(
            "llm forward",
            rows = lengths.len(),
            tokens = sequences.tokens(),
            prefix = shared
        )
        .entered();
        let keep = match (embeds.track_op(), options.recompute) {
            (false, _) => Keep::Nothing,
            (true, true) => Keep::Inputs,
            (true, false) => Keep::Activations,
        };
        let prefix = options.prefix.map(|prefix| &prefix.keys);
        Arc::clone(&self.network).hidden_states(embeds, sequences, prefix, keep, at.as_deref())
    }

    /// Checks that this model can run the right-padded batch.
    pub(crate) fn check_batch(&self, embeds: &Tensor, lengths: &[usize]) -> Result<()> {
        let (rows, seq, hidden) = embeds.dims3().map_err(|_| {
            Error::Input(format!(
                "embeds has shape {:?}, expected (batch, seq, hidden)",
                embeds.shape()
            ))
        })?;
        let expected = self.config().hidden_size;
        if hidden != expected || embeds.dtype() != DType::F32 {
            return Err(Error::Input(format!(
                "embeds is {hidden} wide and of {:?}, the model needs {expected} and F32",
                embeds.dtype(),
            )));
        }
        self.check_device("embeds", embeds)?;
        if lengths.len() != rows || lengths.iter().any(|&l| l == 0 || l > seq) {
            return Err(Error::Input(format!(
                "lengths {lengths:?} do not fit a batch of {rows} rows of 1 to {seq} tokens"
            )));
        }
        Ok(())
    }

    /// Rejects a tensor that is not on the model's device.
    fn check_device(&self, what: &str, tensor: &Tensor) -> Result<()> {
        if tensor.device().same_device(self.device()) {
            return Ok(());
        }
        Err(Error::Input(format!(
            "{what} is on {:?}, the model on {:?}: make both with one `Device`",
            tensor.device().location(),
            self.device().location()
        )))
    }

    /// Computes the hidden states of token ids after the first `layer` layers, `(len, hidden)`,
    /// without the final norm. Layer 0 returns the embeddings. The result is not differentiable.
    ///
    /// The mean over the tokens of an early layer is a cheap text vector.
    ///
    /// ```
    /// use glta_llm::{Device, Llama, LlamaOptions};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let states = llama.layer_hidden_states(&[1, 20, 30], 2)?;
    /// assert_eq!(states.dims(), [3, llama.config().hidden_size]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if `layer` exceeds the number of layers, if an id is outside the
    /// vocabulary, or if there are more tokens than the model's context.
    pub fn layer_hidden_states(&self, ids: &[u32], layer: usize) -> Result<Tensor> {
        let layers = self.config().num_hidden_layers;
        if layer > layers {
            return Err(Error::Input(format!("layer {layer} of a model of {layers} layers")));
        }
        if ids.is_empty() || layer == 0 {
            return self.embed(ids);
        }
        self.network.read(ids, layer, &mut *self.network.keys(false))
    }

    /// Returns the rows `index` of `x: (rows, width)` f32, with zeros for the index [`u32::MAX`].
    ///
    /// The result is differentiable. If a row occurs several times, its gradients are added in the
    /// order of `index`.
    ///
    /// ```
    /// use candle_core::Var;
    /// use glta_llm::{Device, Llama, LlamaOptions};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let x = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
    /// let rows = llama.rows(&x, &[1, u32::MAX, 1])?;
    /// assert_eq!(rows.to_vec2::<f32>()?, [[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]]);
    /// let gradients = rows.sum_all()?.backward()?;
    /// let gradient = gradients.get(&x).map(|g| g.to_vec2::<f32>()).transpose()?;
    /// assert_eq!(gradient, Some(vec![vec![0.0, 0.0], vec![2.0, 2.0]]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error for a wrong shape or dtype, and for an index outside `x`.
    pub fn rows(&self, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        let (_, width) = x.dims2()?;
        if width == 0 || x.dtype() != DType::F32 {
            return Err(Error::Input(format!(
                "rows of shape {:?} and {:?}, expected (rows, width) and F32",
                x.dims(),
                x.dtype()
            )));
        }
        self.check_device("x", x)?;
        Arc::clone(&self.network).rows(x, index)
    }

    /// Computes the vocabulary scores of hidden states, `(.., hidden)` to `(.., vocab)`. The result
    /// is differentiable.
    ///
    /// # Errors
    /// Returns an error for a wrong last dimension or dtype.
    pub fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let LlamaConfig { hidden_size: hidden, vocab_size, .. } = *self.config();
        let mut dims = hidden_states.dims().to_vec();
        if dims.last() != Some(&hidden) || hidden_states.dtype() != DType::F32 {
            return Err(Error::Input(format!(
                "hidden states of shape {dims:?} and {:?}, expected (.., {hidden}) and F32",
                hidden_states.dtype()
            )));
        }
        self.check_device("hidden_states", hidden_states)?;
        let flat = hidden_states.reshape(((), hidden))?.contiguous()?;
        if let Some(last) = dims.last_mut() {
            *last = vocab_size;
        }
        Ok(Arc::clone(&self.network).logits(&flat)?.reshape(dims)?)
    }

    /// Returns the instruction set of the CPU kernels; `None` for a model on another device.
    pub fn simd_level(&self) -> Option<SimdLevel> {
        self.network.simd_level()
    }
}

fn kept_layers(config: &LlamaConfig, options: &LlamaOptions) -> Result<usize> {
    let all = config.num_hidden_layers;
    match options.layers {
        None => Ok(all),
        Some(n) if (1..=all).contains(&n) => Ok(n),
        Some(n) => Err(Error::Config {
            field: "layers",
            problem: format!("{n}, but the model has 1 to {all}"),
        }),
    }
}

/// Creates normally distributed weights, in f32.
fn random_weights<B: Backend>(config: &LlamaConfig, seed: u64, backend: &B) -> Result<Weights<B>> {
    let mut rng = stream(seed, "random weights", &[]);
    let normal = Normal::new(0.0f32, config.initializer_range as f32)
        .map_err(|e| Error::Config { field: "initializer_range", problem: e.to_string() })?;
    let arena = Arena::default();
    let mut matrix = |n: usize, k: usize| {
        let values: Vec<f32> = (0..n * k).map(|_| normal.sample(&mut rng)).collect();
        Ok::<_, Error>(Arc::new(Matrix::dense_f32(&arena, n, k, &values)?))
    };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (ones, eps) = (vec![1.0; hidden], config.rms_norm_eps as f32);
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let table = matrix(config.vocab_size, hidden)?;
    let mut layers = Vec::new();
    for _ in 0..config.num_hidden_layers {
        let mut fused = |outputs: &[usize], inputs: usize| {
            let parts = outputs.iter().map(|&n| Ok((matrix(n, inputs)?, None)));
            Ok::<_, Error>(backend.linear(parts.collect::<Result<_>>()?)?)
        };
        layers.push(DecoderLayer {
            attention_norm: backend.norm(ones.clone(), eps)?,
            qkv: fused(&[queries, keys, keys], hidden)?,
            head_norms: head_norms(config, backend)?,
            o: fused(&[hidden], queries)?,
            mlp_norm: backend.norm(ones.clone(), eps)?,
            gate_up: fused(&[inner, inner], hidden)?,
            down: fused(&[hidden], inner)?,
        });
    }
    let lm_head = if config.tie_word_embeddings {
        Arc::clone(&table)
    } else {
        matrix(config.vocab_size, hidden)?
    };
    let (norm, lm_head) = (backend.final_norm(ones, eps)?, Some(backend.output_layer(lm_head)?));
    Ok(Weights { table, layers, norm, lm_head })
}

/// Creates head norms with weight one, if the model has head norms.
fn head_norms<B: Backend>(config: &LlamaConfig, backend: &B) -> Result<Option<HeadNorms<B>>> {
    if !config.qk_norm {
        return Ok(None);
    }
    let norm = || backend.final_norm(vec![1.0; config.head_dim], config.rms_norm_eps as f32);
    Ok(Some(HeadNorms { queries: norm()?, keys: norm()? }))
}
