use crate::config::LlamaConfig;
use crate::cuda::attention::{Attended, KeySource};
use crate::cuda::{self, elementwise};
use crate::error::{Error, Result};
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
    /// The same on the device of the model, where that is not the CPU.
    pub(crate) device: Option<cuda::Tokens>,
}

/// Where a layer's keys and values come from.
#[derive(Clone, Copy)]
pub(crate) enum LayerKeys<'a> {
    Host(Keys<'a>),
    Device(KeySource<'a>),
}

/// What a layer's derivative needs beside its input.
pub(crate) struct Activations {
    /// Fused projection after RoPE, `(tokens, stride)`.
    qkv: Tensor,
    /// What attention computed, where that is kept.
    attended: Option<Attended>,
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

    /// Rotates queries and keys in place, back where `inverse`.
    fn rotate(&self, qkv: &Tensor, tokens: &Tokens, inverse: bool) -> Result<()> {
        if let Some(device) = &tokens.device {
            return cuda::attention::rotate(qkv, self.heads, device, inverse);
        }
        let rope = Rope {
            heads: self.heads,
            positions: tokens.positions,
            cos: &tokens.rope.cos,
            sin: &tokens.rope.sin,
            inverse,
        };
        rope.apply(qkv)
    }

    fn attention<'a>(&self, tokens: &'a Tokens, keys: Keys<'a>) -> Attention<'a> {
        Attention { heads: self.heads, level: self.level, starts: tokens.starts, keys }
    }

    /// `silu(gate) * up`, `(tokens, inner)`.
    fn activate(&self, gate_up: &Tensor) -> Result<Tensor> {
        match &self.down {
            Linear::Host(_) => SwiGlu { width: self.inner, level: self.level }.forward(gate_up),
            Linear::Device(down) => elementwise::swiglu(down.driver(), gate_up),
        }
    }

    /// Gradient at `gate_up` given the one at the activation.
    fn activate_backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor> {
        match &self.down {
            Linear::Host(_) => {
                SwiGlu { width: self.inner, level: self.level }.backward(gate_up, dh)
            }
            Linear::Device(down) => elementwise::swiglu_backward(down.driver(), gate_up, dh),
        }
    }

    /// Queries, keys and values of `x: (tokens, hidden)`, after RoPE.
    pub(crate) fn project(&self, x: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.attention_norm.forward(x)?, None)?;
        self.rotate(&qkv, tokens, false)?;
        Ok(qkv)
    }

    /// Attention and the first half of the feed-forward part.
    pub(crate) fn attend(
        &self,
        x: &Tensor,
        qkv: Tensor,
        tokens: &Tokens,
        keys: LayerKeys,
    ) -> Result<Activations> {
        let (middle, attended) = match (keys, &tokens.device) {
            (LayerKeys::Host(keys), None) => {
                (self.o.forward(&self.attention(tokens, keys).forward(&qkv)?, Some(x))?, None)
            }
            (LayerKeys::Device(source), Some(device)) => {
                let attended = cuda::attention::forward(&qkv, self.heads, device, source)?;
                (self.o.forward(&attended.out, Some(x))?, Some(attended))
            }
            _ => return Err(elsewhere()),
        };
        let gate_up = self.gate_up.forward(&self.mlp_norm.forward(&middle)?, None)?;
        Ok(Activations { qkv, attended, middle, gate_up })
    }

    /// The layer's output, `(tokens, hidden)`.
    pub(crate) fn finish(&self, a: &Activations) -> Result<Tensor> {
        let h = self.activate(&a.gate_up)?;
        self.down.forward(&h, Some(&a.middle))
    }

    /// Gradient at the input `x` given `dy` at the output, `(tokens, hidden)`.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        a: &Activations,
        dy: &Tensor,
        tokens: &Tokens,
        keys: LayerKeys,
    ) -> Result<Tensor> {
        let dh = self.down.backward(dy)?;
        let d_gate_up = self.activate_backward(&a.gate_up, &dh)?;
        let d_normed = self.gate_up.backward(&d_gate_up)?;
        let d_middle = self.mlp_norm.backward(&a.middle, &d_normed, Some(dy))?;
        let d_attended = self.o.backward(&d_middle)?;
        let d_qkv = match (keys, &tokens.device, &a.attended) {
            (LayerKeys::Host(keys), None, _) => {
                self.attention(tokens, keys).backward(&a.qkv, &d_attended)?
            }
            (LayerKeys::Device(source), Some(device), Some(attended)) => {
                let heads = self.heads;
                cuda::attention::backward(&a.qkv, attended, &d_attended, heads, device, source)?
            }
            _ => return Err(elsewhere()),
        };
        self.rotate(&d_qkv, tokens, true)?;
        let d_normed = self.qkv.backward(&d_qkv)?;
        self.attention_norm.backward(x, &d_normed, Some(&d_middle))
    }
}

fn elsewhere() -> Error {
    Error::Input("keys and tokens are on different devices".into())
}
