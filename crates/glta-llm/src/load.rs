//! Loads packed layers from the folder of a checkpoint.

use std::path::Path;
use std::sync::Arc;

use glta_kernels::{Arena, Backend, Matrix, Weight};
use safetensors::Dtype;

use crate::awq;
use crate::checkpoint::{Checkpoint, FLOATS};
use crate::config::{CheckpointFormat, LlamaConfig, QuantizeConfig};
use crate::error::{Error, Result};
use crate::gptq_tensors;
use crate::layer::{DecoderLayer, HeadNorms};
use crate::network::Weights;

pub(crate) struct Loader<'a, B> {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) config: &'a LlamaConfig,
    /// Backend of the linear layers and norms.
    pub(crate) backend: &'a B,
    pub(crate) arena: Arena,
    /// Prefix of all tensor names: `model.`, or empty in checkpoints without an output layer, such
    /// as text encoders.
    root: &'static str,
    output_bias: bool,
}

impl<'a, B: Backend> Loader<'a, B> {
    pub(crate) fn new(dir: &Path, config: &'a LlamaConfig, backend: &'a B) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let bare = !checkpoint.contains("model.embed_tokens.weight")
            && checkpoint.contains("embed_tokens.weight");
        let root = if bare { "" } else { "model." };
        if config.quantization.is_none() {
            gptq_tensors::refuse_unstated(dir, &checkpoint)?;
        }
        let output_bias = config.output_bias && has_output_bias(&checkpoint);
        Ok(Self { checkpoint, config, backend, arena: Arena::default(), root, output_bias })
    }

    /// Returns the full name of a module, given a name without the prefix such as
    /// `layers.0.mlp.up_proj`.
    pub(crate) fn name(&self, module: &str) -> String {
        format!("{}{module}", self.root)
    }

    /// Returns whether there are biases in q, k and v, in o, and in the feed-forward part.
    pub(crate) fn biases(&self) -> [bool; 3] {
        [self.config.attention_bias, self.output_bias, self.config.mlp_bias]
    }

    /// Loads the first `layers` layers, the embeddings, the final norm and the output layer.
    pub(crate) fn load(self, layers: usize) -> Result<Weights<B>> {
        let c = self.config;
        let table =
            Arc::new(self.dense(&self.name("embed_tokens"), c.vocab_size, c.hidden_size)?);
        let mut loaded = Vec::new();
        for i in 0..layers {
            loaded.push(self.layer(i)?);
        }
        let norm = self.norm_weight(&self.name("norm"), c.hidden_size)?;
        let norm = self.backend.final_norm(norm, c.rms_norm_eps as f32)?;
        let head = self.lm_head(&table)?;
        let lm_head = head.map(|head| self.backend.output_layer(head)).transpose()?;
        self.refuse_unused(layers)?;
        Ok(Weights { table, layers: loaded, norm, lm_head })
    }

    /// Rejects unused tensors, except those of layers from `layers` on.
    pub(crate) fn refuse_unused(&self, layers: usize) -> Result<()> {
        let root = self.root;
        let dropped = |name: &str| {
            // Accept the layers of the configuration that the caller did not request.
            let index = name
                .strip_prefix(root)
                .and_then(|rest| rest.strip_prefix("layers."))
                .and_then(|rest| rest.split('.').next())
                .and_then(|index| index.parse::<usize>().ok());
            index.is_some_and(|i| (layers..self.config.num_hidden_layers).contains(&i))
        };
        let rotary = |name: &str| name.ends_with(".rotary_emb.inv_freq");
        if let Some(extra) = self.checkpoint.first_unused(|name| dropped(name) || rotary(name)) {
            return Err(Error::UnexpectedTensor {
                path: extra.path.to_path_buf(),
                tensor: extra.name.to_string(),
                problem: "the configuration has no place for it".into(),
            });
        }
        Ok(())
    }

    /// Loads the output layer; returns `None` for a model without one.
    fn lm_head(&self, embedding: &Arc<Matrix>) -> Result<Option<Arc<Matrix>>> {
        let c = self.config;
        if !c.tie_word_embeddings {
            if !self.has_lm_head() {
                return Ok(None);
            }
            let (matrix, _) = self.linear("lm_head", c.vocab_size, c.hidden_size, false)?;
            return Ok(Some(matrix));
        }
        // Some files repeat the tied matrix. Reject a different matrix instead of ignoring it.
        if self.checkpoint.contains("lm_head.weight") {
            let head = self.checkpoint.get("lm_head.weight")?;
            let table = self.checkpoint.get(&format!("{}embed_tokens.weight", self.root))?;
            if (head.dtype, head.shape, head.bytes) != (table.dtype, table.shape, table.bytes) {
                return Err(head.error(
                    "differs from embed_tokens.weight although config.json has `tie_word_embeddings` \
                     true; set it to false if this output layer is meant",
                ));
            }
        }
        Ok(Some(Arc::clone(embedding)))
    }

    fn layer(&self, i: usize) -> Result<DecoderLayer<B>> {
        let c = self.config;
        let [qkv_bias, o_bias, mlp_bias] = self.biases();
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (queries, keys) =
            (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
        let fused = |names: &[(&str, usize)], inputs: usize, bias: bool| {
            let mut parts = Vec::new();
            for (name, outputs) in names {
                let name = self.name(&format!("layers.{i}.{name}"));
                parts.push(self.linear(&name, *outputs, inputs, bias)?);
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
            qkv_bias,
        )?;
        let o = fused(&[("self_attn.o_proj", hidden)], queries, o_bias)?;
        let gate_up = fused(&[("mlp.gate_proj", inner), ("mlp.up_proj", inner)], hidden, mlp_bias)?;
        let down = fused(&[("mlp.down_proj", hidden)], inner, mlp_bias)?;
        Ok(DecoderLayer {
            attention_norm: self.norm(&self.name(&format!("layers.{i}.input_layernorm")))?,
            qkv,
            head_norms: self.head_norms(i)?,
            o,
            mlp_norm: self.norm(&self.name(&format!("layers.{i}.post_attention_layernorm")))?,
            gate_up,
            down,
        })
    }

    /// Loads the norms of the query and key heads in layer `i`; returns `None` if the model has
    /// none.
    pub(crate) fn head_norms(&self, i: usize) -> Result<Option<HeadNorms<B>>> {
        let c = self.config;
        if !c.qk_norm {
            return Ok(None);
        }
        let norm = |part: &str| {
            let name = self.name(&format!("layers.{i}.self_attn.{part}"));
            let weight = self.norm_weight(&name, c.head_dim)?;
            Ok::<_, Error>(self.backend.final_norm(weight, c.rms_norm_eps as f32)?)
        };
        Ok(Some(HeadNorms { queries: norm("q_norm")?, keys: norm("k_norm")? }))
    }

    fn norm_weight(&self, prefix: &str, width: usize) -> Result<Vec<f32>> {
        let view = self.checkpoint.get(&format!("{prefix}.weight"))?;
        view.expect(&[width], FLOATS)?;
        view.to_f32()
    }

    pub(crate) fn norm(&self, prefix: &str) -> Result<B::Norm> {
        let weight = self.norm_weight(prefix, self.config.hidden_size)?;
        Ok(self.backend.norm(weight, self.config.rms_norm_eps as f32)?)
    }

    pub(crate) fn dense(&self, prefix: &str, n: usize, k: usize) -> Result<Matrix> {
        let (name, packed) = (format!("{prefix}.weight"), format!("{prefix}.qweight"));
        if !self.checkpoint.contains(&name) && self.checkpoint.contains(&packed) {
            return Err(self.checkpoint.get(&packed)?.error(
                "a quantised weight, but the quantization's `modules_in_block_to_quantize`, \
                 `dynamic` or `lm_head` says that this layer is plain",
            ));
        }
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

    /// Returns the quantisation of a linear layer; `None` for plain weights.
    fn quantization(&self, prefix: &str) -> Result<Option<QuantizeConfig>> {
        let stated = self.config.quantization.as_ref();
        let stated = stated.filter(|q| prefix != "lm_head" || q.lm_head);
        let own = stated.map(|q| q.for_module(prefix)).transpose();
        let own = own.map_err(|error| {
            let path = self.checkpoint.path();
            Error::Input(format!("{}: {prefix}: {error}", path.display()))
        })?;
        Ok(own.flatten())
    }

    /// Checks that [`Self::linear`] will find the tensors of the layer.
    #[cfg(feature = "quantize")]
    pub(crate) fn expect_linear(&self, prefix: &str, n: usize, k: usize, bias: bool) -> Result<()> {
        match self.quantization(prefix)? {
            None => self.checkpoint.get(&format!("{prefix}.weight"))?.expect(&[n, k], FLOATS)?,
            Some(q) if q.checkpoint_format == CheckpointFormat::AwqGemm => {
                awq::Parts::find(&self.checkpoint, prefix, n, k, &q)?;
            }
            Some(q) => {
                gptq_tensors::Parts::find(&self.checkpoint, prefix, n, k, &q)?;
            }
        }
        let name = format!("{prefix}.bias");
        if bias || self.checkpoint.contains(&name) {
            self.checkpoint.get(&name)?.expect(&[n], FLOATS)?;
        }
        Ok(())
    }

    /// Checks the tensors outside the layers.
    #[cfg(feature = "quantize")]
    pub(crate) fn expect_ends(&self) -> Result<()> {
        let c = self.config;
        let embedding = format!("{}.weight", self.name("embed_tokens"));
        self.checkpoint.get(&embedding)?.expect(&[c.vocab_size, c.hidden_size], FLOATS)?;
        self.norm(&self.name("norm"))?;
        if self.has_lm_head() {
            let (n, k) = (c.vocab_size, c.hidden_size);
            if c.tie_word_embeddings {
                return self.checkpoint.get("lm_head.weight")?.expect(&[n, k], FLOATS);
            }
            self.expect_linear("lm_head", n, k, false)?;
        }
        Ok(())
    }

    /// Returns whether the checkpoint contains a separate output layer, or must contain one.
    pub(crate) fn has_lm_head(&self) -> bool {
        let stored =
            ["weight", "qweight"].iter().any(|p| self.checkpoint.contains(&format!("lm_head.{p}")));
        stored || (!self.config.tie_word_embeddings && !self.root.is_empty())
    }

    /// Loads a linear layer and its bias.
    pub(crate) fn linear(
        &self,
        prefix: &str,
        n: usize,
        k: usize,
        has_bias: bool,
    ) -> Result<Weight> {
        let matrix = match self.quantization(prefix)? {
            None => self.dense(prefix, n, k)?,
            Some(q) if q.checkpoint_format == CheckpointFormat::AwqGemm => {
                awq::read(&self.checkpoint, &self.arena, prefix, n, k, &q)?
            }
            Some(q) => gptq_tensors::read(&self.checkpoint, &self.arena, prefix, n, k, &q)?,
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
                // Older files have zero biases in every layer. Any other bias would change the
                // result.
                return Err(
                    view.error("a bias that is not zero, but the configuration has no biases")
                );
            }
        }
        Ok((Arc::new(matrix), bias))
    }
}

/// Returns whether the attention output projections have biases. A configuration may enable these
/// biases together with those of q, k and v. If the configuration enables them but the checkpoint
/// contains none, they are zero, as in transformers.
fn has_output_bias(checkpoint: &Checkpoint) -> bool {
    let some = checkpoint.names().any(|name| name.ends_with(".self_attn.o_proj.bias"));
    if !some {
        tracing::warn!(
            "{}: no layer has the bias of o_proj that config.json promises; it is taken as zero",
            checkpoint.path().display()
        );
    }
    some
}
