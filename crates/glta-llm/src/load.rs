//! From a checkpoint's folder to packed layers.

use std::path::Path;
use std::sync::Arc;

use glta_kernels::{Arena, Backend, GptqTensors, Matrix, ScalesRef, Weight};
use safetensors::Dtype;

use crate::checkpoint::Checkpoint;
use crate::config::{CheckpointFormat, LlamaConfig, QuantizeConfig};
use crate::error::{Error, Result};
use crate::layer::DecoderLayer;
use crate::network::Weights;

const FLOATS: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];

pub(crate) struct Loader<'a, B> {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) config: &'a LlamaConfig,
    /// Where linear layers and norms go.
    pub(crate) backend: &'a B,
    pub(crate) arena: Arena,
}

impl<'a, B: Backend> Loader<'a, B> {
    pub(crate) fn new(dir: &Path, config: &'a LlamaConfig, backend: &'a B) -> Result<Self> {
        Ok(Self { checkpoint: Checkpoint::open(dir)?, config, backend, arena: Arena::default() })
    }

    /// Loads the first `layers` layers and everything around them.
    pub(crate) fn load(mut self, layers: usize) -> Result<Weights<B>> {
        let c = self.config;
        let table = Arc::new(self.dense("model.embed_tokens", c.vocab_size, c.hidden_size)?);
        let mut loaded = Vec::new();
        for i in 0..layers {
            loaded.push(self.layer(i)?);
        }
        let norm = self.norm_weight("model.norm")?;
        let norm = self.backend.final_norm(norm, c.rms_norm_eps as f32)?;
        let lm_head = self.backend.output_layer(self.lm_head(&table)?)?;
        let dropped = |name: &str| {
            // Layers that the configuration has but the caller did not want.
            let index = name
                .strip_prefix("model.layers.")
                .and_then(|rest| rest.split('.').next())
                .and_then(|index| index.parse::<usize>().ok());
            index.is_some_and(|i| (layers..c.num_hidden_layers).contains(&i))
        };
        let rotary = |name: &str| name.ends_with(".rotary_emb.inv_freq");
        if let Some(extra) = self.checkpoint.first_unused(|name| dropped(name) || rotary(name)) {
            return Err(Error::UnexpectedTensor {
                path: extra.path.to_path_buf(),
                tensor: extra.name.to_string(),
                problem: "the configuration has no place for it".into(),
            });
        }
        Ok(Weights { table, layers: loaded, norm, lm_head })
    }

    fn lm_head(&mut self, embedding: &Arc<Matrix>) -> Result<Arc<Matrix>> {
        let c = self.config;
        if !c.tie_word_embeddings {
            let quantization = c.quantization.clone().filter(|q| q.lm_head);
            let (matrix, _) =
                self.linear("lm_head", c.vocab_size, c.hidden_size, false, quantization.as_ref())?;
            return Ok(matrix);
        }
        // Some files repeat the tied matrix; a different one would be ignored.
        if self.checkpoint.contains("lm_head.weight") {
            let head = self.checkpoint.get("lm_head.weight")?;
            let table = self.checkpoint.get("model.embed_tokens.weight")?;
            if (head.dtype, head.shape, head.bytes) != (table.dtype, table.shape, table.bytes) {
                return Err(head.error(
                    "differs from model.embed_tokens.weight although tie_word_embeddings is true",
                ));
            }
        }
        Ok(Arc::clone(embedding))
    }

    fn layer(&mut self, i: usize) -> Result<DecoderLayer<B>> {
        let c = self.config;
        let quantization = c.quantization.clone();
        let q = quantization.as_ref();
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (queries, keys) =
            (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let mut fused = |names: &[(&str, usize)], inputs: usize, bias: bool| {
            let mut parts = Vec::new();
            for (name, outputs) in names {
                let name = format!("model.layers.{i}.{name}");
                parts.push(self.linear(&name, *outputs, inputs, bias, q)?);
            }
            Ok::<_, Error>(self.backend.linear(parts)?)
        };
        let qkv = fused(
            &[
                ("self_attn.q_proj", queries),
                ("self_attn.k_proj", keys),
                ("self_attn.v_proj", keys),
            ],
            hidden,
            c.attention_bias,
        )?;
        let o = fused(&[("self_attn.o_proj", hidden)], queries, c.attention_bias)?;
        let gate_up =
            fused(&[("mlp.gate_proj", inner), ("mlp.up_proj", inner)], hidden, c.mlp_bias)?;
        let down = fused(&[("mlp.down_proj", hidden)], inner, c.mlp_bias)?;
        Ok(DecoderLayer {
            attention_norm: self.norm(&format!("model.layers.{i}.input_layernorm"))?,
            qkv,
            o,
            mlp_norm: self.norm(&format!("model.layers.{i}.post_attention_layernorm"))?,
            gate_up,
            down,
        })
    }

    fn norm_weight(&mut self, prefix: &str) -> Result<Vec<f32>> {
        let view = self.checkpoint.get(&format!("{prefix}.weight"))?;
        view.expect(&[self.config.hidden_size], FLOATS)?;
        view.to_f32()
    }

    pub(crate) fn norm(&mut self, prefix: &str) -> Result<B::Norm> {
        let weight = self.norm_weight(prefix)?;
        Ok(self.backend.norm(weight, self.config.rms_norm_eps as f32)?)
    }

    pub(crate) fn dense(&mut self, prefix: &str, n: usize, k: usize) -> Result<Matrix> {
        let name = format!("{prefix}.weight");
        let view = self.checkpoint.get(&name)?;
        view.expect(&[n, k], FLOATS)?;
        let matrix = match view.dtype {
            Dtype::F32 => Matrix::dense_f32_bytes(&self.arena, n, k, view.bytes)?,
            Dtype::F16 => Matrix::dense_f16_bytes(&self.arena, n, k, view.bytes)?,
            _ => Matrix::dense_bf16_bytes(&self.arena, n, k, view.bytes)?,
        };
        if !matrix.is_finite() {
            return Err(view.error("holds NaN or infinite values"));
        }
        self.checkpoint.release(&name);
        Ok(matrix)
    }

    /// A linear layer and its bias.
    pub(crate) fn linear(
        &mut self,
        prefix: &str,
        n: usize,
        k: usize,
        has_bias: bool,
        quantization: Option<&QuantizeConfig>,
    ) -> Result<Weight> {
        let matrix = match quantization {
            None => self.dense(prefix, n, k)?,
            Some(q) => self.quantized(prefix, n, k, q)?,
        };
        let name = format!("{prefix}.bias");
        let mut bias = None;
        if has_bias || self.checkpoint.contains(&name) {
            let view = self.checkpoint.get(&name)?;
            view.expect(&[n], FLOATS)?;
            let values = view.to_f32()?;
            if has_bias {
                bias = Some(values);
            } else if values.iter().any(|&b| b != 0.0) {
                // Older files carry zero biases for every layer; any other
                // bias would change the result.
                return Err(
                    view.error("a bias that is not zero, but the configuration has no biases")
                );
            }
        }
        Ok((Arc::new(matrix), bias))
    }

    fn quantized(
        &mut self,
        prefix: &str,
        n: usize,
        k: usize,
        q: &QuantizeConfig,
    ) -> Result<Matrix> {
        let bits = q.bits as usize;
        let group_size = q.group_size.unwrap_or(k);
        let n_groups = k.div_ceil(group_size);
        let names = ["qweight", "qzeros", "scales", "g_idx"].map(|part| format!("{prefix}.{part}"));
        let qweight = self.checkpoint.get(&names[0])?;
        let qzeros = self.checkpoint.get(&names[1])?;
        let scales = self.checkpoint.get(&names[2])?;
        // Without act-order the groups can only be consecutive runs, so a file
        // may leave them out.
        let needed = q.desc_act || self.checkpoint.contains(&names[3]);
        let g_idx = needed.then(|| self.checkpoint.get(&names[3])).transpose()?;
        if !(k * bits).is_multiple_of(32) || !(n * bits).is_multiple_of(32) {
            return Err(qweight.error(format!(
                "{k} inputs and {n} outputs of {bits} bits do not fill whole 32-bit words"
            )));
        }
        qweight.expect(&[k * bits / 32, n], &[Dtype::I32])?;
        qzeros.expect(&[n_groups, n * bits / 32], &[Dtype::I32])?;
        scales.expect(&[n_groups, n], FLOATS)?;
        let groups: Vec<u32> = match &g_idx {
            Some(view) => {
                view.expect(&[k], &[Dtype::I32])?;
                let groups = view.cast::<u32>().into_owned();
                check_groups(&groups, group_size, n_groups).map_err(|m| view.error(m))?;
                groups
            }
            None => (0..k).map(|i| (i / group_size) as u32).collect(),
        };
        let qweight_words = qweight.cast::<u32>();
        let qzeros_words = qzeros.cast::<u32>();
        let wide_scales = scales.to_f32()?;
        let f16_scales = (scales.dtype == Dtype::F16).then(|| scales.cast::<u16>());
        let matrix = Matrix::quantized(
            &self.arena,
            &GptqTensors {
                bits: q.bits,
                n,
                k,
                n_groups,
                qweight: &qweight_words,
                qzeros: &qzeros_words,
                v1: q.checkpoint_format == CheckpointFormat::V1,
                scales: match &f16_scales {
                    Some(scales) => ScalesRef::F16(scales),
                    None => ScalesRef::F32(&wide_scales),
                },
                g_idx: &groups,
            },
        )?;
        self.checkpoint.release(&names[0]);
        Ok(matrix)
    }
}

/// Every group of GPTQ holds `group_size` rows, the last one the remainder.
fn check_groups(
    g_idx: &[u32],
    group_size: usize,
    n_groups: usize,
) -> std::result::Result<(), String> {
    let mut counts = vec![0usize; n_groups];
    for (row, &group) in g_idx.iter().enumerate() {
        match counts.get_mut(group as usize) {
            Some(count) => *count += 1,
            None => {
                return Err(format!(
                    "row {row} is in group {}, but there are {n_groups}",
                    group as i32
                ));
            }
        }
    }
    for (group, &count) in counts.iter().enumerate() {
        let expected = group_size.min(g_idx.len() - group * group_size);
        if count != expected {
            return Err(format!("group {group} has {count} rows, expected {expected}"));
        }
    }
    Ok(())
}
