//! GPTQ quantisation of any LLaMA checkpoint, layer by layer.

mod cholesky;
mod gptq;
mod options;
mod writer;

use candle_core::Tensor;
use glta_core::{Progress, Silent, report};
use glta_kernels::{
    Backend, GptqTensors, Heads, Host, Linear, Matrix, Norm, Precision, ScalesRef, Sequences,
};
use half::f16;

use crate::config::LlamaConfig;
use crate::error::{Error, Result};
use crate::layer::heads;
use crate::load::Loader;
use crate::rotary::RotaryCache;
use gptq::{QuantizedLinear, quantize_linear};
pub use options::QuantizeOptions;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

use writer::Writer;

/// One quantised linear layer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuantizeEvent {
    /// Decoder layer, from 0.
    pub layer: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Name of the linear layer inside it, as `mlp.down_proj`.
    pub module: &'static str,
    /// Squared error of its outputs on the calibration text, relative.
    pub relative_error: f64,
}

/// Quantises the linear layers of the checkpoint in `dir` and writes a GPTQ
/// checkpoint (format v1) with its tokenizer to `out`.
///
/// `calibration` holds token ids of texts like those that the model will see;
/// some tens of texts of a few hundred tokens do. Layer after layer is read,
/// quantised on the outputs of the quantised layers before it, and written, so
/// memory holds one layer and the calibration states. A checkpoint that is
/// quantised already is taken at the weights it stands for.
///
/// ```
/// use glta_llm::{QuantizeOptions, Tokenizer, quantize};
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
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
/// Whatever [`Llama::load`](crate::Llama::load) reports of `dir`, invalid
/// options, calibration texts that do not fit the model, sizes that the format
/// cannot hold, unwritable `out`.
pub fn quantize(
    dir: impl AsRef<Path>,
    calibration: &[Vec<u32>],
    options: &QuantizeOptions,
    out: impl AsRef<Path>,
) -> Result<()> {
    quantize_with(dir, calibration, options, out, &mut Silent)
}

/// [`quantize`] that reports every quantised layer.
///
/// # Errors
/// Those of [`quantize`], and [`Error::Cancelled`].
pub fn quantize_with(
    dir: impl AsRef<Path>,
    calibration: &[Vec<u32>],
    options: &QuantizeOptions,
    out: impl AsRef<Path>,
    progress: &mut dyn Progress<QuantizeEvent>,
) -> Result<()> {
    let (dir, out) = (dir.as_ref(), out.as_ref());
    options.validate()?;
    let config = LlamaConfig::from_dir(dir)?;
    let host = Host::new(None, Precision::F32)?;
    let loader = Loader::new(dir, &config, &host)?;
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
    job.copy("model.norm.weight")?;
    if !config.tie_word_embeddings {
        job.copy_dense("lm_head", config.vocab_size, config.hidden_size)?;
    }
    job.writer.finish(dir, out, options)
}

/// All ids, and where they belong.
fn packed(calibration: &[Vec<u32>], config: &LlamaConfig) -> Result<(Vec<u32>, Sequences)> {
    for (i, text) in calibration.iter().enumerate() {
        if text.is_empty() || text.len() > config.max_position_embeddings {
            return Err(Error::Input(format!(
                "calibration text {i} has {} tokens, expected 1 to {}",
                text.len(),
                config.max_position_embeddings
            )));
        }
        if let Some(id) = text.iter().find(|&&id| id as usize >= config.vocab_size) {
            return Err(Error::Input(format!(
                "calibration text {i}: token id {id} is outside the vocabulary"
            )));
        }
    }
    let lengths: Vec<usize> = calibration.iter().map(Vec::len).collect();
    if lengths.is_empty() {
        return Err(Error::Input("no calibration text".into()));
    }
    Ok((calibration.concat(), Sequences::new(&lengths, |_| 0)))
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
        let hidden = self.config.hidden_size;
        let table = self.copy_dense("model.embed_tokens", self.config.vocab_size, hidden)?;
        Ok(self.loader.backend.embed(&Arc::new(table), ids)?)
    }

    fn copy(&mut self, name: &str) -> Result<()> {
        let view = self.loader.checkpoint.get(name)?;
        self.writer.add(name.to_string(), view.dtype, view.shape.to_vec(), view.bytes.to_vec())
    }

    fn copy_dense(&mut self, prefix: &str, n: usize, k: usize) -> Result<Matrix> {
        let matrix = self.loader.dense(prefix, n, k)?;
        self.copy(&format!("{prefix}.weight"))?;
        Ok(matrix)
    }

    fn layer(
        &mut self,
        i: usize,
        x: &Tensor,
        progress: &mut dyn Progress<QuantizeEvent>,
    ) -> Result<Tensor> {
        let c = self.config;
        let (heads, host) = (self.heads, self.loader.backend);
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (queries, keys) = (heads.queries * heads.dim, heads.keys * heads.dim);
        let names = ["input_layernorm", "post_attention_layernorm"]
            .map(|n| format!("model.layers.{i}.{n}"));
        let norms = [self.loader.norm(&names[0])?, self.loader.norm(&names[1])?];
        for name in &names {
            self.copy(&format!("{name}.weight"))?;
        }
        let normed = norms[0].forward(x)?;
        let qkv = [
            ("self_attn.q_proj", queries, c.attention_bias),
            ("self_attn.k_proj", keys, c.attention_bias),
            ("self_attn.v_proj", keys, c.attention_bias),
        ];
        let qkv = self.linears(i, &qkv, hidden, &normed, progress)?.forward(&normed, None)?;
        host.rotate(&qkv, heads, &self.tokens, false)?;
        let (attended, ()) = host.attention(&qkv, heads, &self.tokens, i, None)?;
        let o = [("self_attn.o_proj", hidden, c.attention_bias)];
        let middle =
            self.linears(i, &o, queries, &attended, progress)?.forward(&attended, Some(x))?;
        let normed = norms[1].forward(&middle)?;
        let gate_up = [("mlp.gate_proj", inner, c.mlp_bias), ("mlp.up_proj", inner, c.mlp_bias)];
        let gate_up =
            self.linears(i, &gate_up, hidden, &normed, progress)?.forward(&normed, None)?;
        let h = host.swiglu(&gate_up)?;
        let down = [("mlp.down_proj", hidden, c.mlp_bias)];
        Ok(self.linears(i, &down, inner, &h, progress)?.forward(&h, Some(&middle))?)
    }

    /// Quantises and writes layers that read the same `input: (tokens, k)`.
    fn linears(
        &mut self,
        layer: usize,
        modules: &[(&'static str, usize, bool)],
        k: usize,
        input: &Tensor,
        progress: &mut dyn Progress<QuantizeEvent>,
    ) -> Result<<Host as Backend>::Linear> {
        let hessian = second_moment(&input.flatten_all()?.to_vec1()?, k);
        let mut parts = Vec::new();
        for &(module, n, has_bias) in modules {
            let prefix = format!("model.layers.{layer}.{module}");
            let (matrix, bias) =
                self.loader.linear(&prefix, n, k, has_bias, self.config.quantization.as_ref())?;
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

    /// Packs a layer as the format has it, writes it and loads it back.
    fn store(&mut self, prefix: &str, n: usize, k: usize, q: &QuantizedLinear) -> Result<Matrix> {
        let bits = self.options.bits;
        let b = bits as usize;
        if !(k * b).is_multiple_of(32) || !(n * b).is_multiple_of(32) {
            return Err(Error::Input(format!(
                "`{prefix}`: {k} inputs and {n} outputs of {bits} bits do not fill whole 32-bit words"
            )));
        }
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

/// A little-endian bit stream of fields.
fn pack_fields(fields: &[u8], bits: u32) -> Vec<u32> {
    let mut words = vec![0u32; (fields.len() * bits as usize).div_ceil(32)];
    for (j, &field) in fields.iter().enumerate() {
        let bit = j * bits as usize;
        let value = u64::from(field) << (bit % 32);
        words[bit / 32] |= value as u32;
        if value >> 32 != 0 {
            words[bit / 32 + 1] |= (value >> 32) as u32;
        }
    }
    words
}

/// Zero points as version 1 stores them: see `unpack_zeros`, its inverse.
fn pack_zeros(zeros: &[u8], bits: u32) -> Vec<u32> {
    if bits == 3 {
        let fields: Vec<u8> = zeros.iter().map(|z| z.wrapping_sub(1) & 7).collect();
        return pack_fields(&fields, bits);
    }
    let one_each: u32 = match bits {
        2 => 0x5555_5555,
        4 => 0x1111_1111,
        _ => 0x0101_0101,
    };
    pack_fields(zeros, bits).into_iter().map(|w| w.wrapping_sub(one_each)).collect()
}

/// `Xᵀ X: (k, k)` of `x: (tokens, k)`, over the number of tokens.
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

#[cfg(test)]
mod tests {
    use glta_kernels::Arena;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn zeros_survive_packing(bits in prop::sample::select(vec![2u32, 3, 4, 8]), raw in prop::collection::vec(any::<u8>(), 64)) {
            let top = ((1u32 << bits) - 1) as u8;
            let zeros: Vec<u8> = raw.iter().map(|z| z & top).collect();
            let (n, k) = (64, 32);
            // Weights of (0 - zero) * 1.
            let tensors = GptqTensors {
                bits,
                n,
                k,
                n_groups: 1,
                qweight: &vec![0; k * bits as usize / 32 * n],
                qzeros: &pack_zeros(&zeros, bits),
                v1: true,
                scales: ScalesRef::F32(&[1.0; 64]),
                g_idx: &[0; 32],
            };
            let weight = Matrix::quantized(&Arena::default(), &tensors).unwrap();
            let weight = weight.to_row_major();
            let read: Vec<u8> = weight.chunks(k).map(|row| -row[0] as u8).collect();
            prop_assert_eq!(read, zeros);
        }
    }
}
