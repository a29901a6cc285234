use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::heads::Heads;
use crate::sequences::Sequences;
use crate::simd::SimdLevel;
use crate::weights::{Matrix, Weight};

/// Where a frozen decoder computes: the [CPU](crate::Host) or a [GPU](crate::Cuda).
///
/// A model is generic over its backend, so weights, tables and caches of one backend
/// cannot meet those of another. Tensors on the way through the layers are `(tokens,
/// width)`, the tokens of all sequences packed one behind the other. The residual stream
/// is f32; the inputs of linear layers have the backend's own dtype.
///
/// Every method returns an error for arguments of shapes that do not fit each other.
///
/// No operation records anything for candle's `backward()`: the model calls the
/// derivatives itself.
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Linear layers that read the same input and write side by side.
    type Linear: Linear;
    /// RMSNorm.
    type Norm: Norm;
    /// A token embedding table.
    type Embedding: Debug + Send + Sync;
    /// Cosines and sines of the rotary embedding.
    type Rotary: Debug + Send + Sync;
    /// Tables about the packed tokens of one pass.
    type Tokens: Send + Sync;
    /// Keys and values of one sequence, in every layer.
    type Keys: Keys;
    /// The caches of the sequences of one pass.
    type Caches<'a>;
    /// What the derivative of attention needs beside its input.
    type Attended: Send + Sync;

    /// Where candle's tensors must be.
    fn device(&self) -> &Device;

    /// Instruction set of the kernels, on a CPU.
    fn simd_level(&self) -> Option<SimdLevel> {
        None
    }

    /// Whether attention with heads of this shape can be computed.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where it cannot.
    fn check(&self, heads: Heads) -> Result<()>;

    /// Runs `work` on the backend's threads. `tokens` is the number of tokens of a pass
    /// through cached layers, `None` for other work.
    fn run<R: Send>(&self, tokens: Option<usize>, work: impl FnOnce() -> R + Send) -> R;

    /// Layers of the same number of inputs.
    ///
    /// # Errors
    /// No memory on the device.
    fn linear(&self, parts: Vec<Weight>) -> Result<Self::Linear>;

    /// The layer behind the last norm, whose results are f32.
    ///
    /// # Errors
    /// No memory on the device.
    fn output_layer(&self, matrix: Arc<Matrix>) -> Result<Self::Linear>;

    /// RMSNorm with `weight: (width,)` in front of a linear layer.
    ///
    /// # Errors
    /// No memory on the device.
    fn norm(&self, weight: Vec<f32>, eps: f32) -> Result<Self::Norm>;

    /// RMSNorm behind the last layer, whose results are f32.
    ///
    /// # Errors
    /// No memory on the device.
    fn final_norm(&self, weight: Vec<f32>, eps: f32) -> Result<Self::Norm>;

    /// The embedding table `(vocab, hidden)`.
    ///
    /// # Errors
    /// A quantised table; no memory on the device.
    fn embedding(&self, table: &Arc<Matrix>) -> Result<Self::Embedding>;

    /// Rows of the table, `(ids, hidden)` f32.
    ///
    /// # Errors
    /// An id outside the table; a failed tensor operation.
    fn embed(&self, table: &Self::Embedding, ids: &[u32]) -> Result<Tensor>;

    /// Cosines and sines, both `(positions, half)`.
    ///
    /// # Errors
    /// No memory on the device.
    fn rotary(&self, cos: Vec<f32>, sin: Vec<f32>, half: usize) -> Result<Self::Rotary>;

    /// Tables for a pass over these sequences; `rotary` has all their positions.
    ///
    /// # Errors
    /// No memory on the device.
    fn tokens(
        &self,
        sequences: &Arc<Sequences>,
        rotary: &Arc<Self::Rotary>,
    ) -> Result<Self::Tokens>;

    /// The real tokens of a right-padded batch: `(batch, seq, width)` f32 to
    /// `(tokens, width)`.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn pack(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor>;

    /// `(tokens, width)` to `(batch, seq, width)`, zero where padded.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn unpack(&self, x: &Tensor, sequences: &Sequences, seq: usize) -> Result<Tensor>;

    /// `silu(gate) * up` of `(tokens, 2 * width)`.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor>;

    /// Gradient at `gate_up` given `dh: (tokens, width)` at the result.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn swiglu_backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor>;

    /// Rotates the queries and keys of `qkv: (tokens, stride)` in place by their
    /// positions; backwards, which is the derivative, where `inverse`.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn rotate(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        inverse: bool,
    ) -> Result<()>;

    /// Causal attention of `qkv: (tokens, stride)` after the rotation: `(tokens,
    /// queries * dim)`. Every sequence sees the tokens of `shared` in this layer too,
    /// and before its own.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn attention(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<(Tensor, Self::Attended)>;

    /// Gradient at `qkv` given `d_out` at the result of [`Self::attention`]; that of
    /// `shared` is not formed.
    ///
    /// # Errors
    /// A failed tensor operation.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        qkv: &Tensor,
        attended: &Self::Attended,
        d_out: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<Tensor>;

    /// An empty cache; `differentiable` for one that [`Self::attention_backward`] sees
    /// as shared.
    fn keys(&self, layers: usize, heads: Heads, differentiable: bool) -> Self::Keys;

    /// Whether `keys` were made by a backend like this one, for so many layers of this
    /// shape.
    fn fits(&self, keys: &Self::Keys, layers: usize, heads: Heads) -> bool;

    /// Makes room for the pass's own tokens in the sequences' caches.
    ///
    /// # Errors
    /// Another number of caches than sequences; no memory on the device.
    fn caches<'a>(
        &self,
        sequences: &Sequences,
        keys: Vec<&'a mut Self::Keys>,
    ) -> Result<Self::Caches<'a>>;

    /// [`Self::attention`] of sequences that continue behind their caches, which the
    /// tokens' own keys and values are appended to first.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn attention_cached(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        caches: &mut Self::Caches<'_>,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<Tensor>;
}

/// Frozen linear layers `Y = X Wᵀ + b`, whose only derivative is `dX = dY W`.
pub trait Linear: Debug + Send + Sync {
    /// `X Wᵀ + b`: `(rows, inputs)` to `(rows, outputs)`; with a residual in f32
    /// `X Wᵀ + b + residual` in f32.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// `dY W`: `(rows, outputs)` to `(rows, inputs)`.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn backward(&self, dy: &Tensor) -> Result<Tensor>;

    /// [`Self::forward`] from and to f32, whatever the backend's own dtype.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn forward_f32(&self, x: &Tensor) -> Result<Tensor>;

    /// [`Self::backward`] from and to f32.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn backward_f32(&self, dy: &Tensor) -> Result<Tensor>;

    /// Bytes that the weights hold in memory.
    fn resident_bytes(&self) -> usize;
}

/// RMSNorm with a frozen weight.
pub trait Norm: Debug + Send + Sync {
    /// `x / rms(x) * w`, `(tokens, width)`, of f32.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// `residual + dL/dx` in f32, given `dy` at the result.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn backward(&self, x: &Tensor, dy: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// Bytes that the weight holds in memory.
    fn resident_bytes(&self) -> usize;
}

/// Keys and values of consecutive tokens of one sequence, in every layer.
pub trait Keys: Clone + Debug + Send + Sync + 'static {
    /// Number of tokens.
    fn len(&self) -> usize;

    /// Whether there are no tokens.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the first `len` tokens; does nothing where there are fewer.
    fn truncate(&mut self, len: usize);

    /// Makes room for `tokens` in all.
    ///
    /// # Errors
    /// No memory on the device.
    fn reserve(&mut self, tokens: usize) -> Result<()>;
}
