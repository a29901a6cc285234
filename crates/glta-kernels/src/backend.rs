use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::arguments::check_rows;
use crate::error::{Error, Result};
use crate::heads::Heads;
use crate::sequences::Sequences;
use crate::simd::SimdLevel;
use crate::weights::{Matrix, Weight};

/// The device that computes a frozen decoder: the [CPU](crate::Host) or a [GPU](crate::Cuda).
///
/// A model is generic over its backend, so weights, tables and caches of different backends cannot
/// be mixed. Between layers, tensors are `(tokens, width)` with the tokens of all sequences packed
/// without padding. The residual stream is f32; the inputs of linear layers have the backend's
/// dtype.
///
/// Every method returns an error if the shapes of its arguments do not match.
///
/// Operations are not recorded for candle's `backward()`; the model calls the derivatives itself.
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Linear layers with a common input and concatenated outputs.
    type Linear: Linear;
    /// RMSNorm.
    type Norm: Norm;
    /// A token embedding table.
    type Embedding: Debug + Send + Sync;
    /// Cosines and sines of the rotary embedding.
    type Rotary: Debug + Send + Sync;
    /// Tables for the packed tokens of one pass.
    type Tokens: Send + Sync;
    /// Keys and values of one sequence, for all layers.
    type Keys: Keys;
    /// The caches of the sequences of one pass.
    type Caches<'a>;
    /// Values that the derivative of attention needs in addition to its input.
    type Attended: Send + Sync;
    /// Buffers and launches of [`Self::decode`] for a fixed number of texts.
    type Decoder: Debug + Send;

    /// The device of candle's tensors.
    fn device(&self) -> &Device;

    /// Instruction set of the kernels; `None` on a GPU.
    fn simd_level(&self) -> Option<SimdLevel> {
        None
    }

    /// Bytes that can still be allocated on the device; `None` where the system's memory is used.
    ///
    /// # Errors
    /// The device does not answer.
    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Checks that attention supports heads of this shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if it does not.
    fn check(&self, heads: Heads) -> Result<()>;

    /// Runs `work` on the backend's threads. `tokens` is the number of tokens of a pass through
    /// cached layers; `None` for other work.
    fn run<R: Send>(&self, tokens: Option<usize>, work: impl FnOnce() -> R + Send) -> R;

    /// Creates one linear layer from parts with the same number of inputs.
    ///
    /// # Errors
    /// The device is out of memory.
    fn linear(&self, parts: Vec<Weight>) -> Result<Self::Linear>;

    /// Creates the output layer, which follows the last norm and returns f32.
    ///
    /// # Errors
    /// The device is out of memory.
    fn output_layer(&self, matrix: Arc<Matrix>) -> Result<Self::Linear>;

    /// Creates an RMSNorm with `weight: (width,)` that precedes a linear layer.
    ///
    /// # Errors
    /// The device is out of memory.
    fn norm(&self, weight: Vec<f32>, eps: f32) -> Result<Self::Norm>;

    /// Creates the RMSNorm after the last layer, which returns f32.
    ///
    /// # Errors
    /// The device is out of memory.
    fn final_norm(&self, weight: Vec<f32>, eps: f32) -> Result<Self::Norm>;

    /// Creates the embedding table `(vocab, hidden)`.
    ///
    /// # Errors
    /// The table is quantised, or the device is out of memory.
    fn embedding(&self, table: &Arc<Matrix>) -> Result<Self::Embedding>;

    /// Returns rows of the table, `(ids, hidden)` f32.
    ///
    /// # Errors
    /// An id is outside the table, or a tensor operation failed.
    fn embed(&self, table: &Self::Embedding, ids: &[u32]) -> Result<Tensor>;

    /// Creates the table of cosines and sines, both `(positions, half)`.
    ///
    /// # Errors
    /// The device is out of memory.
    fn rotary(&self, cos: Vec<f32>, sin: Vec<f32>, half: usize) -> Result<Self::Rotary>;

    /// Creates the tables for a pass over these sequences; `rotary` must have all their positions.
    ///
    /// # Errors
    /// The device is out of memory.
    fn tokens(
        &self,
        sequences: &Arc<Sequences>,
        rotary: &Arc<Self::Rotary>,
    ) -> Result<Self::Tokens>;

    /// Packs the tokens of a right-padded batch: `(batch, seq, width)` f32 to `(tokens, width)`.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn pack(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor>;

    /// Unpacks `(tokens, width)` to `(batch, seq, width)`; padding is zero.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn unpack(&self, x: &Tensor, sequences: &Sequences, seq: usize) -> Result<Tensor>;

    /// Returns the rows `index` of `x: (rows, width)` f32, with zeros for the index [`u32::MAX`].
    ///
    /// # Errors
    /// An index outside `x`, or a tensor operation failed.
    fn rows(&self, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        check_rows(index, x.dim(0)?)?;
        let none = Tensor::zeros((1, x.dim(1)?), x.dtype(), x.device())?;
        let index = with_no_row(index, x.dim(0)?, x.device())?;
        Ok(Tensor::cat(&[x, &none], 0)?.index_select(&index, 0)?)
    }

    /// Returns the gradient of `x` of [`Self::rows`], for the gradient `dy: (index, width)` of the
    /// result. The rows of `dy` are added in ascending order.
    ///
    /// # Errors
    /// An index outside `x`, or a tensor operation failed.
    fn rows_backward(&self, dy: &Tensor, index: &[u32], rows: usize) -> Result<Tensor> {
        check_rows(index, rows)?;
        let zeros = Tensor::zeros((rows + 1, dy.dim(1)?), dy.dtype(), dy.device())?;
        let index = with_no_row(index, rows, dy.device())?;
        Ok(zeros.index_add(&index, &dy.contiguous()?, 0)?.narrow(0, 0, rows)?)
    }

    /// Returns `silu(gate) * up` of `(tokens, 2 * width)`.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor>;

    /// Returns the result of `linear` for the norm of `x: (tokens, inputs)` f32.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn normed(&self, norm: &Self::Norm, linear: &Self::Linear, x: &Tensor) -> Result<Tensor> {
        linear.forward(&norm.forward(x)?, None)
    }

    /// Returns [`Self::swiglu`] of [`Self::normed`] with the layers `gate_up`.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn gated(&self, norm: &Self::Norm, gate_up: &Self::Linear, x: &Tensor) -> Result<Tensor> {
        self.swiglu(&self.normed(norm, gate_up, x)?)
    }

    /// Returns the result of the output layer for the norm of `x: (tokens, inputs)` f32, in f32.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn scores(&self, norm: &Self::Norm, output: &Self::Linear, x: &Tensor) -> Result<Tensor> {
        output.forward_f32(&norm.forward(x)?)
    }

    /// Returns the gradient of `gate_up` for the gradient `dh: (tokens, width)` of the result.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn swiglu_backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor>;

    /// Rotates the queries and keys of `qkv: (tokens, stride)` in place by their positions.
    /// `inverse` rotates backwards, which is the derivative.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn rotate(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        inverse: bool,
    ) -> Result<()>;

    /// Returns causal attention of the rotated `qkv: (tokens, stride)`, `(tokens, queries * dim)`.
    /// Every sequence also attends to the tokens of `shared` in this layer, which precede its own.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn attention(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<(Tensor, Self::Attended)>;

    /// Returns the gradient of `qkv` for the gradient `d_out` of the result of [`Self::attention`].
    /// No gradient is computed for `shared`.
    ///
    /// # Errors
    /// A tensor operation failed.
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

    /// Creates an empty cache; `differentiable` if [`Self::attention_backward`] will use it as
    /// `shared`.
    fn keys(&self, layers: usize, heads: Heads, differentiable: bool) -> Self::Keys;

    /// Whether `keys` belong to this kind of backend and to this number and shape of layers.
    fn fits(&self, keys: &Self::Keys, layers: usize, heads: Heads) -> bool;

    /// Reserves room for the pass's tokens in the sequences' caches.
    ///
    /// # Errors
    /// The number of caches differs from the number of sequences, or the device is out of memory.
    fn caches<'a>(
        &self,
        sequences: &Sequences,
        keys: Vec<&'a mut Self::Keys>,
    ) -> Result<Self::Caches<'a>>;

    /// [`Self::attention`] of sequences that continue their caches, for `qkv` before its rotation.
    /// First rotates it ([`Self::rotate`]) and appends the tokens' keys and values to the caches.
    /// `qkv` may be rotated in place or not.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn attention_cached(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        caches: &mut Self::Caches<'_>,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<Tensor>;

    /// Creates what [`Self::decode`] needs for this number of texts; `None` if the host has to
    /// choose the tokens from scores.
    ///
    /// # Errors
    /// The device is out of memory.
    fn decoder(&self, texts: usize) -> Result<Option<Self::Decoder>>;

    /// Decodes one token of each text, appends it to the caches, and returns the ids with the
    /// highest score, the lowest one among equals.
    ///
    /// `layers` returns the scores `(texts, vocab)` for the embeddings of the tokens, and calls
    /// [`Self::end_stage`] after each layer. Its calls of this backend may be recorded and repeated
    /// in later steps, so it calls nothing else that computes with tensors.
    ///
    /// # Errors
    /// Arguments that do not fit the decoder, errors of `layers`, or a tensor operation failed.
    fn decode<E: From<Error>>(
        &self,
        decoder: &mut Self::Decoder,
        next: Next<'_, Self>,
        layers: impl Fn(Tensor, &Self::Tokens, &mut Self::Caches<'_>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<u32>, E>;

    /// Ends a stage of [`Self::decode`]: the next stage uses results of this one, but not of
    /// earlier ones, whose memory is used again.
    fn end_stage(&self) {}
}

/// One token of each of several texts, which continue their caches.
#[derive(Debug)]
pub struct Next<'a, B: Backend> {
    /// Ids of the tokens.
    pub ids: &'a [u32],
    /// Sequences of one token each, at the positions of the tokens.
    pub sequences: &'a Sequences,
    /// The embedding table.
    pub embedding: &'a B::Embedding,
    /// A table of at least `context` positions.
    pub rotary: &'a Arc<B::Rotary>,
    /// The caches of the texts.
    pub keys: Vec<&'a mut B::Keys>,
    /// Tokens that precede every text.
    pub shared: Option<&'a B::Keys>,
    /// Largest number of keys of a text, in this step and in later ones with the same launches.
    pub context: usize,
}

/// The index with `rows` in place of [`u32::MAX`].
fn with_no_row(index: &[u32], rows: usize, device: &Device) -> Result<Tensor> {
    let index: Vec<u32> =
        index.iter().map(|&row| if row == u32::MAX { rows as u32 } else { row }).collect();
    Ok(Tensor::new(index, device)?)
}

/// Frozen linear layers `Y = X Wᵀ + b`. Their only derivative is `dX = dY W`.
pub trait Linear: Debug + Send + Sync {
    /// Returns `X Wᵀ + b`, `(rows, inputs)` to `(rows, outputs)`. With an f32 residual, returns `X
    /// Wᵀ + b + residual` in f32.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// Returns `dY W`, `(rows, outputs)` to `(rows, inputs)`.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn backward(&self, dy: &Tensor) -> Result<Tensor>;

    /// [`Self::forward`] from f32 to f32, for any dtype of the backend.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn forward_f32(&self, x: &Tensor) -> Result<Tensor>;

    /// [`Self::backward`] from f32 to f32.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn backward_f32(&self, dy: &Tensor) -> Result<Tensor>;

    /// Size of the weights in memory, in bytes.
    fn resident_bytes(&self) -> usize;
}

/// RMSNorm with a frozen weight.
pub trait Norm: Debug + Send + Sync {
    /// Returns `x / rms(x) * w`, `(tokens, width)`, for an f32 input.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Returns `residual + dL/dx` in f32, for the gradient `dy` of the result.
    ///
    /// # Errors
    /// A tensor operation failed.
    fn backward(&self, x: &Tensor, dy: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// Size of the weight in memory, in bytes.
    fn resident_bytes(&self) -> usize;
}

/// Keys and values of consecutive tokens of one sequence, for all layers.
pub trait Keys: Clone + Debug + Send + Sync + 'static {
    /// Number of tokens.
    fn len(&self) -> usize;

    /// Whether there are no tokens.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all but the first `len` tokens; does nothing if there are fewer.
    fn truncate(&mut self, len: usize);

    /// Reserves room for a total of `tokens`.
    ///
    /// # Errors
    /// The device is out of memory.
    fn reserve(&mut self, tokens: usize) -> Result<()>;
}
