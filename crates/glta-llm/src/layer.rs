use crate::config::LlamaConfig;
use crate::error::Result;
use crate::kernel::attention::Heads;
use crate::linear::Linear;
use crate::ops::{Attention, Keys, RmsNorm, Rope, SwiGlu};
use crate::rope::RopeTable;
use crate::simd::SimdLevel;
use candle_core::Tensor;

/// One frozen decoder layer over packed tokens.
#[derive(Debug)]
pub(crate) struct DecoderLayer {
    heads: Heads,
    inner: usize,
    level: SimdLevel,
    attention_norm: RmsNorm,
    qkv: Linear,
    o: Linear,
    mlp_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

/// Where the packed tokens of a batch belong.
pub(crate) struct Tokens<'a> {
    /// First token of every sequence, and the number of tokens.
    pub(crate) starts: &'a [usize],
    /// Position of every token in its sequence.
    pub(crate) positions: &'a [u32],
    pub(crate) rope: &'a RopeTable,
}

/// What a layer's derivative needs beside its input.
pub(crate) struct Activations {
    /// Fused projection after RoPE, `(tokens, stride)`.
    qkv: Tensor,
    /// Between attention and feed-forward, `(tokens, hidden)`.
    middle: Tensor,
    /// `(tokens, 2 * inner)`
    gate_up: Tensor,
}

impl DecoderLayer {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        config: &LlamaConfig,
        level: SimdLevel,
        attention_norm: RmsNorm,
        qkv: Linear,
        o: Linear,
        mlp_norm: RmsNorm,
        gate_up: Linear,
        down: Linear,
    ) -> Self {
        Self {
            heads: Heads {
                queries: config.num_attention_heads,
                keys: config.num_key_value_heads,
                dim: config.head_dim,
            },
            inner: config.intermediate_size,
            level,
            attention_norm,
            qkv,
            o,
            mlp_norm,
            gate_up,
            down,
        }
    }

    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// Bytes that the weights hold in memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        [&self.qkv, &self.o, &self.gate_up, &self.down]
            .iter()
            .map(|l| l.resident_bytes())
            .sum::<usize>()
            + 4 * (self.attention_norm.weight.len() + self.mlp_norm.weight.len())
    }

    fn rope<'a>(&self, tokens: &'a Tokens, inverse: bool) -> Rope<'a> {
        Rope {
            heads: self.heads,
            positions: tokens.positions,
            cos: &tokens.rope.cos,
            sin: &tokens.rope.sin,
            inverse,
        }
    }

    fn attention<'a>(&self, tokens: &'a Tokens, keys: Keys<'a>) -> Attention<'a> {
        Attention { heads: self.heads, level: self.level, starts: tokens.starts, keys }
    }

    fn swiglu(&self) -> SwiGlu {
        SwiGlu { width: self.inner, level: self.level }
    }

    /// Queries, keys and values of `x: (tokens, hidden)`, after RoPE.
    pub(crate) fn project(&self, x: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.attention_norm.forward(x)?, None)?;
        self.rope(tokens, false).apply(&qkv)?;
        Ok(qkv)
    }

    /// Attention and the first half of the feed-forward part.
    pub(crate) fn attend(
        &self,
        x: &Tensor,
        qkv: Tensor,
        tokens: &Tokens,
        keys: Keys,
    ) -> Result<Activations> {
        let attended = self.attention(tokens, keys).forward(&qkv)?;
        let middle = self.o.forward(&attended, Some(x))?;
        let gate_up = self.gate_up.forward(&self.mlp_norm.forward(&middle)?, None)?;
        Ok(Activations { qkv, middle, gate_up })
    }

    /// The layer's output, `(tokens, hidden)`.
    pub(crate) fn finish(&self, a: &Activations) -> Result<Tensor> {
        let h = self.swiglu().forward(&a.gate_up)?;
        self.down.forward(&h, Some(&a.middle))
    }

    /// Gradient at the input `x` given `dy` at the output, `(tokens, hidden)`.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        a: &Activations,
        dy: &Tensor,
        tokens: &Tokens,
        keys: Keys,
    ) -> Result<Tensor> {
        let dh = self.down.backward(dy)?;
        let d_gate_up = self.swiglu().backward(&a.gate_up, &dh)?;
        let d_normed = self.gate_up.backward(&d_gate_up)?;
        let d_middle = self.mlp_norm.backward(&a.middle, &d_normed, dy)?;
        let d_attended = self.o.backward(&d_middle)?;
        let d_qkv = self.attention(tokens, keys).backward(&a.qkv, &d_attended)?;
        self.rope(tokens, true).apply(&d_qkv)?;
        let d_normed = self.qkv.backward(&d_qkv)?;
        self.attention_norm.backward(x, &d_normed, &d_middle)
    }
}
