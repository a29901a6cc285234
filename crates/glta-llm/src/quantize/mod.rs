//! Quantises LLaMA checkpoints by GPTQ, layer by layer.

mod checks;
mod cholesky;
mod gptq;
mod options;
mod pack;
mod writer;

use candle_core::Tensor;
use glta_core::{Progress, Silent, report};
use glta_kernels::{Backend, GptqTensors, Heads, Host, Linear, Matrix, Norm, Precision, ScalesRef};
use half::f16;

use crate::config::LlamaConfig;
use crate::error::Result;
use crate::layer::heads;
use crate::load::Loader;
use crate::rotary::RotaryCache;
use checks::{check_output, check_tensors, check_words, linears, packed};
use gptq::{QuantizedLinear, quantize_linear};
pub use options::QuantizeOptions;
use pack::{pack_fields, pack_zeros};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

use writer::Writer;

/// Progress of [`quantize`]: one linear layer has been quantised.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuantizeEvent {
    /// Index of the decoder layer, from 0.
    pub layer: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Name of the linear layer within the decoder layer, such as `mlp.down_proj`.
    pub module: &'static str,
    /// Relative squared error of the layer's outputs on the calibration texts.
    pub relative_error: f64,
}

/// Quantises the linear layers of the checkpoint in `dir` and writes a GPTQ checkpoint (format v1)
/// with its tokenizer to `out`.
///
/// `calibration` contains the token ids of texts that resemble the later inputs. Some tens of texts
/// with a few hundred tokens each are enough. Layers are processed one after the other: each is
/// read, quantised on the outputs of the quantised layers before it, and written. Memory therefore
/// holds one layer and the calibration states. If the checkpoint is already quantised, its
/// dequantised weights are quantised again.
///
/// ```
/// use glta_llm::{QuantizeOptions, Tokenizer, quantize};
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
/// let ids = Tokenizer::load(dir)?.encode(&"green tea and black tea ".repeat(20), true)?;
/// let calibration: Vec<Vec<u32>> = ids.chunks_exact(32).map(<[u32]>::to_vec).collect();
/// let out = tempfile::tempdir()?;
/// let options = QuantizeOptions { bits: 8, group_size: Some(64), ..Default::default() };
/// quantize(dir, &calibration, &options, out.path())?;
/// assert!(out.path().join("quantize_config.json").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns the errors of [`Llama::load`](crate::Llama::load) for `dir`, and an error for invalid
/// options, for calibration texts that do not fit the model, for sizes that the format does not
/// support, and for an `out` that is `dir` itself, contains weights, or cannot be written. All of
/// these are reported before the first layer is quantised.
pub fn quantize(
    dir: impl AsRef<Path>,
    calibration: &[Vec<u32>],
    options: &QuantizeOptions,
    out: impl AsRef<Path>,
) -> Result<()> {
    quantize_with(dir, calibration, options, out, &mut Silent)
}

/// Quantises like [`quantize`] and reports every quantised layer.
///
/// # Errors
/// Returns the errors of [`quantize`], and [`Error::Cancelled`](crate::Error::Cancelled).
pub fn quantize_with(
    dir: impl AsRef<Path>,
    calibration: &[Vec<u32>],
    options: &QuantizeOptions,
    out: impl AsRef<Path>,
    progress: &mut dyn Progress<QuantizeEvent>,
) -> Result<()> {
    let (dir, out) = (dir.as_ref(), out.as_ref());
    options.validate()?;
    check_output(dir, out)?;
    let config = LlamaConfig::from_dir(dir)?;
    let host = Host::new(None, Precision::F32)?;
    let loader = Loader::new(dir, &config, &host)?;
    check_tensors(&loader, options)?;
    let (ids, sequences) = packed(calibration, &config)?;
    let rotary = RotaryCache::new(&config, &host).table(sequences.context())?;
    let mut job = Job {
        loader,
        config: &config,
        options,
        writer: Writer::new(out)?,
        tokens: host.tokens(&Arc::new(sequences), &rotary)?,
        heads: heads(&config),
    };
    let mut x = job.embed(&ids)?;
    for layer in 0..config.num_hidden_layers {
        x = job.layer(layer, &x, progress)?;
    }
    job.copy(&job.loader.name("norm.weight"))?;
    if !config.tie_word_embeddings && job.loader.has_lm_head() {
        job.copy_head()?;
    }
    job.writer.finish(dir, out, options)
}

struct Job<'a> {
    loader: Loader<'a, Host>,
    config: &'a LlamaConfig,
    options: &'a QuantizeOptions,
    writer: Writer,
    tokens: <Host as Backend>::Tokens,
    heads: Heads,
}

impl Job<'_> {
    fn embed(&mut self, ids: &[u32]) -> Result<Tensor> {
        let name = self.loader.name("embed_tokens");
        let table = self.loader.dense(&name, self.config.vocab_size, self.config.hidden_size)?;
        self.copy(&format!("{name}.weight"))?;
        Ok(self.loader.backend.embed(&Arc::new(table), ids)?)
    }

    /// Writes the output layer unquantised.
    fn copy_head(&mut self) -> Result<()> {
        let c = self.config;
        if c.quantization.as_ref().is_none_or(|q| !q.lm_head) {
            return self.copy("lm_head.weight");
        }
        let (matrix, _) = self.loader.linear("lm_head", c.vocab_size, c.hidden_size, false)?;
        let values = matrix.to_row_major();
        let bytes = values.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect();
        let shape = vec![c.vocab_size, c.hidden_size];
        self.writer.add("lm_head.weight".into(), Dtype::F16, shape, bytes)
    }

    fn copy(&mut self, name: &str) -> Result<()> {
        let view = self.loader.checkpoint.get(name)?;
        self.writer.add(name.to_string(), view.dtype, view.shape.to_vec(), view.bytes.to_vec())
    }

    fn layer(
        &mut self,
        i: usize,
        x: &Tensor,
        progress: &mut dyn Progress<QuantizeEvent>,
    ) -> Result<Tensor> {
        let c = self.config;
        let host = self.loader.backend;
        let window = c.sliding_window.as_ref();
        let window = window.filter(|window| window.layers.get(i) == Some(&true));
        let heads = Heads { window: window.map(|window| window.tokens), ..self.heads };
        let [q, k, v, o, gate, up, down] = linears(c, self.loader.biases());
        let name = |module: &str| self.loader.name(&format!("layers.{i}.{module}"));
        let norm_names = [name("input_layernorm"), name("post_attention_layernorm")];
        let norms = [self.loader.norm(&norm_names[0])?, self.loader.norm(&norm_names[1])?];
        let head_norms = self.loader.head_norms(i)?;
        let mut copied = norm_names.to_vec();
        if head_norms.is_some() {
            copied.extend([name("self_attn.q_norm"), name("self_attn.k_norm")]);
        }
        for name in &copied {
            self.copy(&format!("{name}.weight"))?;
        }
        let normed = norms[0].forward(x)?;
        let mut qkv = self.linears(i, &[q, k, v], &normed, progress)?.forward(&normed, None)?;
        if let Some(norms) = &head_norms {
            qkv = norms.forward(&qkv, heads)?;
        }
        host.rotate(&qkv, heads, &self.tokens, false)?;
        let (attended, ()) = host.attention(&qkv, heads, &self.tokens, i, None)?;
        let middle = self.linears(i, &[o], &attended, progress)?.forward(&attended, Some(x))?;
        let normed = norms[1].forward(&middle)?;
        let gate_up = self.linears(i, &[gate, up], &normed, progress)?.forward(&normed, None)?;
        let h = host.swiglu(&gate_up)?;
        Ok(self.linears(i, &[down], &h, progress)?.forward(&h, Some(&middle))?)
    }

    /// Quantises and writes linear layers that have the same `input: (tokens, k)`.
    fn linears(
        &mut self,
        layer: usize,
        modules: &[(&'static str, usize, usize, bool)],
        input: &Tensor,
        progress: &mut dyn Progress<QuantizeEvent>,
    ) -> Result<<Host as Backend>::Linear> {
        let (_, k) = input.dims2()?;
        let hessian = second_moment(&input.flatten_all()?.to_vec1()?, k);
        let mut parts = Vec::new();
        for &(module, n, k, has_bias) in modules {
            let prefix = self.loader.name(&format!("layers.{layer}.{module}"));
            let (matrix, bias) = self.loader.linear(&prefix, n, k, has_bias)?;
            let weight = matrix.to_row_major();
            let run = || quantize_linear(&weight, n, k, &hessian, self.options);
            let quantized = self.loader.backend.run(None, run)?;
            if let Some(bias) = &bias {
                let bytes = bias.iter().flat_map(|&b| f16::from_f32(b).to_le_bytes()).collect();
                self.writer.add(format!("{prefix}.bias"), Dtype::F16, vec![n], bytes)?;
            }
            parts.push((Arc::new(self.store(&prefix, n, k, &quantized)?), bias));
            let event = QuantizeEvent {
                layer,
                layers: self.config.num_hidden_layers,
                module,
                relative_error: quantized.relative_error,
            };
            report(progress, &event)?;
        }
        Ok(self.loader.backend.linear(parts)?)
    }

    /// Packs a layer into the file format, writes the tensors and returns the packed matrix.
    fn store(&mut self, prefix: &str, n: usize, k: usize, q: &QuantizedLinear) -> Result<Matrix> {
        let bits = self.options.bits;
        let b = bits as usize;
        check_words(prefix, n, k, bits)?;
        let n_groups = q.scales.len() / n;
        let mut qweight = vec![0u32; k * b / 32 * n];
        for (row, fields) in q.fields.chunks_exact(k).enumerate() {
            for (w, words) in pack_fields(fields, bits).into_iter().enumerate() {
                qweight[w * n + row] = words;
            }
        }
        let mut qzeros = Vec::with_capacity(n_groups * n * b / 32);
        let mut scales = vec![0u16; n_groups * n];
        for g in 0..n_groups {
            let row: Vec<u8> = (0..n).map(|r| q.zeros[r * n_groups + g]).collect();
            qzeros.extend(pack_zeros(&row, bits));
            for r in 0..n {
                scales[g * n + r] = q.scales[r * n_groups + g].to_bits();
            }
        }
        let mut add = |part: &str, dtype, shape: Vec<usize>, bytes: &[u8]| {
            self.writer.add(format!("{prefix}.{part}"), dtype, shape, bytes.to_vec())
        };
        add("qweight", Dtype::I32, vec![k * b / 32, n], bytemuck::cast_slice(&qweight))?;
        add("qzeros", Dtype::I32, vec![n_groups, n * b / 32], bytemuck::cast_slice(&qzeros))?;
        add("scales", Dtype::F16, vec![n_groups, n], bytemuck::cast_slice(&scales))?;
        add("g_idx", Dtype::I32, vec![k], bytemuck::cast_slice(&q.g_idx))?;
        let tensors = GptqTensors {
            bits,
            n,
            k,
            n_groups,
            qweight: &qweight,
            qzeros: &qzeros,
            v1: true,
            scales: ScalesRef::F16(&scales),
            g_idx: &q.g_idx,
        };
        Ok(Matrix::quantized(&self.loader.arena, &tensors)?)
    }
}

/// Returns `Xᵀ X: (k, k)` of `x: (tokens, k)`, divided by the number of tokens.
fn second_moment(x: &[f32], k: usize) -> Vec<f32> {
    let tokens = x.len() / k;
    let mut h = vec![0f32; k * k];
    // SAFETY: the strides describe x, its transpose and h, all row-major.
    unsafe {
        gemm::gemm(
            k,
            k,
            tokens,
            h.as_mut_ptr(),
            1,
            k as isize,
            false,
            x.as_ptr(),
            k as isize,
            1,
            x.as_ptr(),
            1,
            k as isize,
            0.0,
            1.0 / tokens as f32,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
    h
}
