use candle_core::{DType, Tensor};
use glta_kernels::{Backend, Heads, Linear, Norm};

use crate::config::LlamaConfig;
use crate::error::Result;
use crate::selected::Selected;

/// One frozen decoder layer over packed tokens.
#[derive(Debug)]
pub(crate) struct DecoderLayer<B: Backend> {
    pub(crate) attention_norm: B::Norm,
    /// Fused projection to queries, keys and values.
    pub(crate) qkv: B::Linear,
    pub(crate) head_norms: Option<HeadNorms<B>>,
    pub(crate) o: B::Linear,
    pub(crate) mlp_norm: B::Norm,
    /// Fused gate and up projections.
    pub(crate) gate_up: B::Linear,
    pub(crate) down: B::Linear,
}

/// Returns the sizes of a model's attention.
pub(crate) fn heads(config: &LlamaConfig) -> Heads {
    Heads {
        queries: config.num_attention_heads,
        keys: config.num_key_value_heads,
        dim: config.head_dim,
        window: None,
    }
}

/// RMSNorms of the query heads and the key heads, before the rotation.
#[derive(Debug)]
pub(crate) struct HeadNorms<B: Backend> {
    pub(crate) queries: B::Norm,
    pub(crate) keys: B::Norm,
}

impl<B: Backend> HeadNorms<B> {
    /// Returns the fused projection with normalised queries and keys, `(tokens, stride)`.
    pub(crate) fn forward(&self, qkv: &Tensor, heads: Heads) -> Result<Tensor> {
        let normed = |norm: &B::Norm, at: usize, count: usize| -> Result<Tensor> {
            Ok(back(&norm.forward(&split(qkv, at, count, heads.dim)?)?, qkv)?)
        };
        let queries = normed(&self.queries, 0, heads.queries)?;
        let keys = normed(&self.keys, heads.key_at(), heads.keys)?;
        let values = qkv.narrow(1, heads.value_at(), heads.keys * heads.dim)?.contiguous()?;
        Ok(Tensor::cat(&[&queries, &keys, &values], 1)?)
    }

    /// Computes the gradient at `qkv`, given `dy` at the normalised projection.
    fn backward(&self, qkv: &Tensor, dy: &Tensor, heads: Heads) -> Result<Tensor> {
        let gradient = |norm: &B::Norm, at: usize, count: usize| -> Result<Tensor> {
            let x = split(qkv, at, count, heads.dim)?;
            let dy = split(dy, at, count, heads.dim)?;
            Ok(back(&norm.backward(&x, &dy, None)?, qkv)?)
        };
        let queries = gradient(&self.queries, 0, heads.queries)?;
        let keys = gradient(&self.keys, heads.key_at(), heads.keys)?;
        let values = dy.narrow(1, heads.value_at(), heads.keys * heads.dim)?.contiguous()?;
        Ok(Tensor::cat(&[&queries, &keys, &values], 1)?)
    }
}

/// Copies `count` heads from column `at` on, one head per row, in f32.
fn split(qkv: &Tensor, at: usize, count: usize, dim: usize) -> candle_core::Result<Tensor> {
    qkv.narrow(1, at, count * dim)?.contiguous()?.reshape(((), dim))?.to_dtype(DType::F32)
}

/// Undoes [`split`]: joins the heads to one row per token, in the dtype of `like`.
fn back(rows: &Tensor, like: &Tensor) -> candle_core::Result<Tensor> {
    let (tokens, _) = like.dims2()?;
    rows.reshape((tokens, rows.elem_count() / tokens.max(1)))?.to_dtype(like.dtype())
}

/// Inputs of a layer in addition to the hidden states.
pub(crate) struct Pass<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) heads: Heads,
    pub(crate) tokens: &'a B::Tokens,
    /// Keys of a prefix in front of every sequence.
    pub(crate) shared: Option<&'a B::Keys>,
    /// Index of the layer.
    pub(crate) layer: usize,
}

/// Activations that the backward pass of a layer needs in addition to the input.
pub(crate) struct Activations<B: Backend> {
    /// Fused projection before the norms of its heads; `None` without norms.
    raw: Option<Tensor>,
    /// Fused projection after the rotation, `(tokens, stride)`.
    qkv: Tensor,
    attended: B::Attended,
    half: Half,
}

/// Intermediate results of a layer after attention, for all tokens or the selected ones.
struct Half {
    /// Hidden states between attention and feed-forward, `(tokens, hidden)`.
    middle: Tensor,
    /// Gate and up projections, `(tokens, 2 * inner)`.
    gate_up: Tensor,
}

impl<B: Backend> DecoderLayer<B> {
    /// Returns the size of the weights in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let linears = [&self.qkv, &self.o, &self.gate_up, &self.down];
        let norms = [&self.attention_norm, &self.mlp_norm];
        let heads = self.head_norms.iter().flat_map(|norms| [&norms.queries, &norms.keys]);
        linears.iter().map(|l| l.resident_bytes()).sum::<usize>()
            + heads.map(|n| n.resident_bytes()).sum::<usize>()
            + norms.iter().map(|n| n.resident_bytes()).sum::<usize>()
    }

    /// Computes queries, keys and values of `x: (tokens, hidden)` before the rotation. If the heads
    /// have norms, also returns the projection before the norms.
    fn project(&self, x: &Tensor, pass: &Pass<B>) -> Result<(Tensor, Option<Tensor>)> {
        let qkv = pass.backend.normed(&self.attention_norm, &self.qkv, x)?;
        Ok(match &self.head_norms {
            None => (qkv, None),
            Some(norms) => (norms.forward(&qkv, pass.heads)?, Some(qkv)),
        })
    }

    /// Computes the activations of `x: (tokens, hidden)` for [`Self::output`] and
    /// [`Self::backward`]. With `selected`, the part after attention and the output are computed
    /// for these tokens only.
    pub(crate) fn activations(
        &self,
        x: &Tensor,
        pass: &Pass<B>,
        selected: Option<&Selected>,
    ) -> Result<Activations<B>> {
        let Pass { backend, heads, tokens, shared, layer } = *pass;
        let (qkv, raw) = self.project(x, pass)?;
        backend.rotate(&qkv, heads, tokens, false)?;
        let (out, attended) = backend.attention(&qkv, heads, tokens, layer, shared)?;
        let middle = match selected {
            None => self.o.forward(&out, Some(x))?,
            Some(rows) => self.o.forward(&rows.select(&out)?, Some(&rows.select(x)?))?,
        };
        let gate_up = backend.normed(&self.mlp_norm, &self.gate_up, &middle)?;
        Ok(Activations { raw, qkv, attended, half: Half { middle, gate_up } })
    }

    /// Computes the layer's output, `(tokens, hidden)`.
    pub(crate) fn output(&self, a: &Activations<B>, pass: &Pass<B>) -> Result<Tensor> {
        let Half { middle, gate_up } = &a.half;
        Ok(self.down.forward(&pass.backend.swiglu(gate_up)?, Some(middle))?)
    }

    /// Computes the layer's output for sequences that continue their caches.
    pub(crate) fn extend(
        &self,
        x: &Tensor,
        pass: &Pass<B>,
        caches: &mut B::Caches<'_>,
    ) -> Result<Tensor> {
        let Pass { backend, heads, tokens, shared, layer } = *pass;
        let (qkv, _) = self.project(x, pass)?;
        let out = backend.attention_cached(&qkv, heads, tokens, caches, layer, shared)?;
        let middle = self.o.forward(&out, Some(x))?;
        let h = backend.gated(&self.mlp_norm, &self.gate_up, &middle)?;
        Ok(self.down.forward(&h, Some(&middle))?)
    }

    /// Computes the gradient at the input `x`, given `dy` at the output, `(tokens, hidden)`. `dy`
    /// has the rows of `selected` only, if [`Self::activations`] had them.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        a: &Activations<B>,
        dy: &Tensor,
        pass: &Pass<B>,
        selected: Option<&Selected>,
    ) -> Result<Tensor> {
        let Pass { backend, heads, tokens, shared, layer } = *pass;
        let Activations { raw, qkv, attended, half } = a;
        let dh = self.down.backward(dy)?;
        let d_gate_up = backend.swiglu_backward(&half.gate_up, &dh)?;
        let d_normed = self.gate_up.backward(&d_gate_up)?;
        let d_middle = self.mlp_norm.backward(&half.middle, &d_normed, Some(dy))?;
        let d_out = self.o.backward(&d_middle)?;
        let (d_out, d_middle) = match selected {
            None => (d_out, d_middle),
            Some(rows) => (rows.spread(&d_out)?, rows.spread(&d_middle)?),
        };
        let d_qkv =
            backend.attention_backward(qkv, attended, &d_out, heads, tokens, layer, shared)?;
        backend.rotate(&d_qkv, heads, tokens, true)?;
        let d_qkv = match (&self.head_norms, raw) {
            (Some(norms), Some(raw)) => norms.backward(raw, &d_qkv, heads)?,
            _ => d_qkv,
        };
        let d_normed = self.qkv.backward(&d_qkv)?;
        Ok(self.attention_norm.backward(x, &d_normed, Some(&d_middle))?)
    }
}
