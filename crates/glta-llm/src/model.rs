use crate::cache::SequenceKeys;
use crate::config::LlamaConfig;
use crate::cuda::{self, Accelerator, elementwise};
use crate::error::{Error, Result};
use crate::kernel::attention::Heads;
use crate::layer::DecoderLayer;
use crate::linear::Linear;
use crate::load::{Loader, Weights};
use crate::ops::RmsNorm;
use crate::pool;
use crate::rope::{RopeCache, RopeTable};
use crate::simd::SimdLevel;
use crate::stack::{Batch, Keep, Stack, computed_cpu, computed_cuda};
use crate::weights::{Arena, Matrix};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Result as CandleResult, Shape,
    Tensor,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, OnceLock};

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

/// Arithmetic of the model.
///
/// On the CPU, that of the products with quantised weights; everything else
/// (norms, attention, weights that are not quantised) is f32 in any case. On a
/// CUDA device, the type of all activations, and of weights while they are
/// multiplied; sums, norms, softmax and the model's inputs and outputs are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// What weights of 2 or 4 bits are multiplied with is rounded to bf16, and
    /// the products are summed in f32; forward the weights are exact, backward
    /// they are rounded too. Weights of 3 and 8 bits stay with f32.
    ///
    /// Against f32, SmolLM2-135M (30 layers, 4 bits) has hidden states with a
    /// relative error of 0.010, logits and input gradients of 0.022 (L2), and
    /// three of four greedy continuations of 24 tokens are the same.
    ///
    /// Faster on a processor with AVX-512 BF16 ([`SimdLevel::Avx512Bf16`]);
    /// emulated elsewhere, with the same products, and slower than f32.
    Bf16,
    /// f16; on CUDA devices only. Finer than bf16, with a range that small gradients
    /// can fall out of.
    F16,
}

/// How [`Llama::hidden_states`] runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardOptions<'a> {
    /// Tokens that stand before every row, computed once.
    pub prefix: Option<&'a Prefix>,
    /// Keep only each layer's input for the backward pass and compute the rest
    /// again there: less memory, about one more forward pass of time.
    pub recompute: bool,
}

/// Keys and values of a shared start of many prompts, in every layer.
///
/// Cheap to clone; belongs to the model that made it.
#[derive(Clone, Debug)]
pub struct Prefix {
    keys: Arc<SequenceKeys>,
}

impl Prefix {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn keys(&self) -> &SequenceKeys {
        &self.keys
    }
}

/// A frozen LLaMA: nothing in it is trained, but gradients flow through it to
/// the embeddings at its input.
///
/// Cheap to clone, and shared between threads freely.
#[derive(Clone, Debug)]
pub struct Llama {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    config: LlamaConfig,
    device: Device,
    /// What runs the model where that is not the CPU.
    pub(crate) accelerator: Option<Accelerator>,
    level: SimdLevel,
    embedding: Arc<Matrix>,
    /// The same on the accelerator, `(vocab, hidden)` in its own dtype.
    embedding_on_device: Option<Tensor>,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) norm: RmsNorm,
    lm_head: Linear,
    rope: RopeCache,
    embedding_rms: OnceLock<f32>,
}

impl Inner {
    /// A table for the given positions.
    pub(crate) fn rope_for(&self, positions: &[u32]) -> Result<Arc<RopeTable>> {
        let needed = positions.iter().max().map_or(0, |&p| p as usize + 1);
        if needed > self.config.max_position_embeddings {
            return Err(Error::Input(format!(
                "a sequence of {needed} tokens, but the model's context is {}",
                self.config.max_position_embeddings
            )));
        }
        self.rope.table(needed)
    }

    /// Embeddings of token ids, `(len, hidden)`.
    pub(crate) fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let hidden = self.config.hidden_size;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(Error::Input(format!(
                "token id {id} is outside the vocabulary of {}",
                self.config.vocab_size
            )));
        }
        if let (Some(accelerator), Some(table)) = (&self.accelerator, &self.embedding_on_device) {
            return elementwise::gather_rows(
                &accelerator.driver,
                table,
                &Tensor::new(ids, &self.device)?,
            );
        }
        let mut out = vec![0.0; ids.len() * hidden];
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(hidden)) {
            self.embedding.dense_row(id as usize, row);
        }
        Ok(Tensor::from_vec(out, (ids.len(), hidden), &Device::Cpu)?)
    }

    /// `(rows, hidden)` to `(rows, vocab)` f32.
    pub(crate) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.lm_head.forward_f32(x)
    }

    /// Of every layer.
    pub(crate) fn heads(&self) -> Heads {
        heads(&self.config)
    }

    /// Refuses a tensor on another device than the model.
    pub(crate) fn check_device(&self, what: &str, tensor: &Tensor) -> Result<()> {
        if tensor.device().same_device(&self.device) {
            return Ok(());
        }
        Err(Error::Input(format!(
            "{what} is on {:?}, the model on {:?}: make both with one `Device`",
            tensor.device().location(),
            self.device.location()
        )))
    }

    /// [`pool::enter`] for work on the CPU. A GPU's work stays on this thread: a
    /// device of [`Device::new_cuda`] has a queue of its own for every thread, and
    /// does not wait between them.
    pub(crate) fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self.accelerator {
            None => pool::enter(f),
            Some(_) => f(),
        }
    }

    /// [`pool::enter_for`], as [`Self::enter`].
    pub(crate) fn enter_for<R: Send>(&self, tokens: usize, f: impl FnOnce() -> R + Send) -> R {
        match self.accelerator {
            None => pool::enter_for(tokens, f),
            Some(_) => f(),
        }
    }
}

impl Llama {
    /// Loads a checkpoint's folder: `config.json`, safetensors weights (GPTQ
    /// or plain), and `quantize_config.json` where there is one.
    ///
    /// The files are memory-mapped while they are read and must not be changed
    /// meanwhile. Weights stay packed in memory.
    ///
    /// Loading onto a CUDA device turns that [`Device`]'s event tracking off: its
    /// tensors are used on its own stream, in order. Where another stream uses them
    /// (through cudarc, or by `to_device` to another GPU), call [`Device::synchronize`]
    /// first, and keep them until that use has finished.
    ///
    /// # Errors
    /// Missing or malformed files, tensors that are missing, surplus, of the
    /// wrong shape or dtype or not finite, and options that are not supported,
    /// each by name; a device that is not there or not supported.
    pub fn load(dir: impl AsRef<Path>, options: &LlamaOptions, device: &Device) -> Result<Self> {
        Self::load_with(dir.as_ref(), options, Accelerator::new(device, options.precision)?)
    }

    pub(crate) fn load_with(
        dir: &Path,
        options: &LlamaOptions,
        accelerator: Option<Accelerator>,
    ) -> Result<Self> {
        let config = LlamaConfig::from_dir(dir)?;
        let layers = kept_layers(&config, options)?;
        let level = simd_level(options)?;
        let loader = Loader::new(dir, &config, level, options.precision, accelerator.as_ref())?;
        let weights = match accelerator {
            None => pool::enter(|| loader.load(layers))?,
            Some(_) => loader.load(layers)?,
        };
        Self::from_weights(config, layers, weights, level, accelerator)
    }

    /// A model with normally distributed f32 weights of deviation
    /// [`LlamaConfig::initializer_range`] and norm weights of one.
    ///
    /// # Errors
    /// An invalid configuration; a device that is not there or not supported.
    pub fn random(config: &LlamaConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::random_with(config, seed, Accelerator::new(device, Precision::F32)?)
    }

    pub(crate) fn random_with(
        config: &LlamaConfig,
        seed: u64,
        accelerator: Option<Accelerator>,
    ) -> Result<Self> {
        config.validate()?;
        let level = SimdLevel::detect();
        let mut config = config.clone();
        config.quantization = None;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0f32, config.initializer_range as f32)
            .map_err(|e| Error::Config { field: "initializer_range", message: e.to_string() })?;
        let arena = Arena::default();
        let mut matrix = |n: usize, k: usize| {
            let values: Vec<f32> = (0..n * k).map(|_| normal.sample(&mut rng)).collect();
            Ok::<_, Error>(Arc::new(Matrix::dense_f32(&arena, n, k, &values)?))
        };
        let norm = || {
            let eps = config.rms_norm_eps as f32;
            RmsNorm::new(vec![1.0; config.hidden_size], eps, level, accelerator.as_ref())
        };
        let linear = |parts: Vec<_>| match &accelerator {
            None => Ok(Linear::new(parts, level, Precision::F32)),
            Some(accelerator) => {
                Ok::<_, Error>(Linear::Device(cuda::Linear::upload(accelerator, &parts)?))
            }
        };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let embedding = matrix(config.vocab_size, hidden)?;
        let mut layers = Vec::new();
        for _ in 0..config.num_hidden_layers {
            let mut fused = |outputs: &[usize], inputs: usize| {
                let parts = outputs.iter().map(|&n| Ok((matrix(n, inputs)?, None)));
                linear(parts.collect::<Result<_>>()?)
            };
            layers.push(DecoderLayer::new(
                &config,
                level,
                norm()?,
                fused(&[queries, keys, keys], hidden)?,
                fused(&[hidden], queries)?,
                norm()?,
                fused(&[inner, inner], hidden)?,
                fused(&[hidden], inner)?,
            ));
        }
        let lm_head = match config.tie_word_embeddings {
            true => Arc::clone(&embedding),
            false => matrix(config.vocab_size, hidden)?,
        };
        let lm_head = linear(vec![(lm_head, None)])?;
        let weights = Weights { embedding, norm: norm()?.in_f32(), layers, lm_head };
        let n = config.num_hidden_layers;
        config.attention_bias = false;
        config.mlp_bias = false;
        Self::from_weights(config, n, weights, level, accelerator)
    }

    fn from_weights(
        mut config: LlamaConfig,
        layers: usize,
        weights: Weights,
        level: SimdLevel,
        accelerator: Option<Accelerator>,
    ) -> Result<Self> {
        config.num_hidden_layers = layers;
        let rope = RopeCache::new(&config, accelerator.as_ref());
        let (mut device, mut embedding_on_device) = (Device::Cpu, None);
        if let Some(accelerator) = &accelerator {
            cuda::attention::check(heads(&config))?;
            embedding_on_device = Some(cuda::table(accelerator, &weights.embedding)?);
            device = accelerator.device.clone();
            // Whoever uses the model first may do so on another thread.
            device.synchronize()?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                device,
                accelerator,
                level,
                embedding: weights.embedding,
                embedding_on_device,
                layers: weights.layers,
                norm: weights.norm,
                lm_head: weights.lm_head,
                rope,
                embedding_rms: OnceLock::new(),
            }),
        })
    }

    /// The configuration, with `num_hidden_layers` as loaded.
    pub fn config(&self) -> &LlamaConfig {
        &self.inner.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Bytes that the weights hold in memory.
    pub fn resident_bytes(&self) -> usize {
        let inner = &self.inner;
        let tables = match inner.config.tie_word_embeddings {
            true => 0,
            false => inner.embedding.resident_bytes(),
        };
        inner.layers.iter().map(DecoderLayer::resident_bytes).sum::<usize>()
            + inner.lm_head.resident_bytes()
            + tables
            + 4 * inner.norm.weight.len()
    }

    /// Embeddings of token ids, `(len, hidden)` f32; frozen.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.inner.embed(ids)
    }

    /// Root mean square of the token embedding table: the scale that soft
    /// tokens should have.
    pub fn embedding_rms(&self) -> f32 {
        *self.inner.embedding_rms.get_or_init(|| {
            let config = &self.inner.config;
            let mut row = vec![0.0; config.hidden_size];
            let mut sum = 0.0f64;
            for id in 0..config.vocab_size {
                self.inner.embedding.dense_row(id, &mut row);
                sum += row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            }
            (sum / (config.vocab_size * config.hidden_size) as f64).sqrt() as f32
        })
    }

    /// Keys and values of a prompt's start that many rows share, computed once.
    ///
    /// # Errors
    /// An id outside the vocabulary; more tokens than the model's context.
    pub fn prefix(&self, ids: &[u32]) -> Result<Prefix> {
        let model = &self.inner;
        model.enter(|| {
            let mut keys = SequenceKeys::new(model, true);
            if !ids.is_empty() {
                let positions: Vec<u32> = (0..ids.len() as u32).collect();
                let (x, layers) = (model.embed(ids)?, model.layers.len());
                let caches = &mut [&mut keys];
                model.forward_cached(x, &[0, ids.len()], &positions, None, layers, caches)?;
            }
            Ok(Prefix { keys: Arc::new(keys) })
        })
    }

    /// Hidden states after the final norm, `(batch, seq, hidden)`.
    ///
    /// `embeds: (batch, seq, hidden)` f32 is right-padded, `lengths` holds the
    /// number of real tokens of every row; padded positions are not computed
    /// and come out zero. A row's result does not depend, in any bit, on the
    /// rows beside it. Where `embeds` is tracked by candle (a `Var`, or
    /// computed from one), `backward()` gives its gradient; else nothing is
    /// kept.
    ///
    /// # Errors
    /// Shapes, dtypes or lengths that do not fit; more tokens than the model's
    /// context; a prefix of another model.
    pub fn hidden_states(
        &self,
        embeds: &Tensor,
        lengths: &[usize],
        options: &ForwardOptions,
    ) -> Result<Tensor> {
        let seq = self.check_batch(embeds, lengths, options.prefix)?;
        let (model, rows) = (&self.inner, lengths.len());
        if rows == 0 {
            return Ok(embeds.clone());
        }
        let batch = Batch::new(seq, lengths, |_| options.prefix.map_or(0, Prefix::len));
        let _span = tracing::debug_span!(
            "llm forward",
            rows,
            tokens = batch.tokens(),
            prefix = options.prefix.map_or(0, Prefix::len)
        )
        .entered();
        let prefix = options.prefix.filter(|p| !p.is_empty());
        let keep = match (embeds.track_op(), options.recompute) {
            (false, _) => Keep::Nothing,
            (true, true) => Keep::Inputs,
            (true, false) => Keep::Activations,
        };
        let accelerator = model.accelerator.as_ref();
        let (output, tape) = model.enter(|| -> Result<_> {
            let x = batch.pack(embeds, accelerator)?;
            let (x, tape) = model.forward(x, &batch, prefix, keep)?;
            Ok((batch.unpack(&x, accelerator)?, tape))
        })?;
        if keep == Keep::Nothing {
            return Ok(output);
        }
        Ok(embeds.apply_op1(Stack {
            model: Arc::clone(model),
            output,
            tape,
            batch,
            prefix: prefix.cloned(),
        })?)
    }

    /// Whether a right-padded batch and its prefix fit this model; its `seq`.
    pub(crate) fn check_batch(
        &self,
        embeds: &Tensor,
        lengths: &[usize],
        prefix: Option<&Prefix>,
    ) -> Result<usize> {
        let (rows, seq, hidden) = embeds.dims3().map_err(|_| {
            Error::Input(format!(
                "embeds has shape {:?}, expected (batch, seq, hidden)",
                embeds.shape()
            ))
        })?;
        let model = &self.inner;
        if hidden != model.config.hidden_size || embeds.dtype() != DType::F32 {
            return Err(Error::Input(format!(
                "embeds is {hidden} wide and of {:?}, the model needs {} and F32",
                embeds.dtype(),
                model.config.hidden_size
            )));
        }
        model.check_device("embeds", embeds)?;
        if lengths.len() != rows || lengths.iter().any(|&l| l == 0 || l > seq) {
            return Err(Error::Input(format!(
                "lengths {lengths:?} do not fit a batch of {rows} rows of 1 to {seq} tokens"
            )));
        }
        if prefix.is_some_and(|p| !p.keys.is_for(model)) {
            return Err(Error::Input("the prefix belongs to another model".into()));
        }
        Ok(seq)
    }

    /// Hidden states of token ids after the first `layer` layers, `(len,
    /// hidden)`, without the final norm; 0 gives the embeddings. Frozen.
    ///
    /// The mean over tokens of an early layer makes a cheap text vector.
    ///
    /// # Errors
    /// `layer` over the number of layers; an id outside the vocabulary; more
    /// tokens than the model's context.
    pub fn layer_hidden_states(&self, ids: &[u32], layer: usize) -> Result<Tensor> {
        let model = &self.inner;
        if layer > model.layers.len() {
            return Err(Error::Input(format!(
                "layer {layer} of a model of {} layers",
                model.layers.len()
            )));
        }
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        let x = model.embed(ids)?;
        if ids.is_empty() || layer == 0 {
            return Ok(x);
        }
        model.enter(|| {
            let caches = &mut [&mut SequenceKeys::new(model, false)];
            model.forward_cached(x, &[0, ids.len()], &positions, None, layer, caches)
        })
    }

    /// Scores of the vocabulary, `(.., hidden)` to `(.., vocab)`;
    /// differentiable.
    ///
    /// # Errors
    /// A last dimension or dtype that does not fit.
    pub fn logits(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let hidden = self.inner.config.hidden_size;
        let mut dims = hidden_states.dims().to_vec();
        if dims.last() != Some(&hidden) || hidden_states.dtype() != DType::F32 {
            return Err(Error::Input(format!(
                "hidden states of shape {dims:?} and {:?}, expected (.., {hidden}) and F32",
                hidden_states.dtype()
            )));
        }
        self.inner.check_device("hidden_states", hidden_states)?;
        let flat = hidden_states.reshape(((), hidden))?.contiguous()?;
        if let Some(last) = dims.last_mut() {
            *last = self.inner.config.vocab_size;
        }
        let model = &self.inner;
        let output = match model.accelerator {
            None => None,
            Some(_) => Some(model.logits(&flat.detach())?),
        };
        let op = Logits { model: Arc::clone(model), output };
        Ok(model.enter(|| flat.apply_op1(op))?.reshape(dims)?)
    }

    /// Instruction set that the CPU kernels use.
    pub fn simd_level(&self) -> SimdLevel {
        self.inner.level
    }
}

/// The output layer as a differentiable op.
struct Logits {
    model: Arc<Inner>,
    /// Computed already where the model is not on the CPU.
    output: Option<Tensor>,
}

impl CustomOp1 for Logits {
    fn name(&self) -> &'static str {
        "frozen-logits"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        match &self.output {
            None => self.model.lm_head.cpu_fwd(x, l),
            Some(output) => computed_cpu(output),
        }
    }
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        match &self.output {
            Some(output) => computed_cuda(output),
            None => candle_core::bail!("the model is on the CPU"),
        }
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let grad = grad.detach().contiguous()?;
        let run = || self.model.lm_head.backward_f32(&grad);
        self.model.enter(run).map(Some).map_err(candle_core::Error::wrap)
    }
}

fn kept_layers(config: &LlamaConfig, options: &LlamaOptions) -> Result<usize> {
    let all = config.num_hidden_layers;
    match options.layers {
        None => Ok(all),
        Some(n) if (1..=all).contains(&n) => Ok(n),
        Some(n) => Err(Error::Config {
            field: "layers",
            message: format!("{n}, but the model has 1 to {all}"),
        }),
    }
}

fn simd_level(options: &LlamaOptions) -> Result<SimdLevel> {
    match options.simd {
        None => Ok(SimdLevel::detect()),
        Some(level) if level.is_supported() => Ok(level),
        Some(level) => Err(Error::Config {
            field: "simd",
            message: format!("this processor does not run {level:?}"),
        }),
    }
}

fn heads(config: &LlamaConfig) -> Heads {
    Heads {
        queries: config.num_attention_heads,
        keys: config.num_key_value_heads,
        dim: config.head_dim,
    }
}
