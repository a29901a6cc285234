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
/// Candle does not record these operations for `backward()`; the model calls the derivatives
/// itself.
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Linear layers with a common input and concatenated outputs.
    type Linear: Linear;
    /// RMSNorm with a frozen weight.
    type Norm: Norm;
    /// A token embedding table.
    type Embedding: Debug + Send + Sync;
    /// Tables of the cosines and sines of the rotary embedding.
    type Rotary: Debug + Send + Sync;
    /// Per-token tables, such as positions, for the packed tokens of one pass.
    type Tokens: Send + Sync;
    /// Keys and values of one sequence, for all layers.
    type Keys: Keys;
    /// The caches of the sequences of one pass.
    type Caches<'a>;
    /// Values that the derivative of attention needs in addition to its input.
    type Attended: Send + Sync;
    /// Buffers and launches of [`Self::decode`] for a fixed number of texts.
    type Decoder: Debug + Send;

    /// Returns the candle device of the tensors.
    fn device(&self) -> &Device;

    /// Returns the instruction set of the kernels; `None` on a GPU.
    fn simd_level(&self) -> Option<SimdLevel> {
        None
    }

    /// Returns the number of bytes that can still be allocated on the device; `None` if the tensors
    /// are in system memory.
    ///
    /// # Errors
    /// Returns an error if the device does not answer.
    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Checks that attention supports `heads`.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`](crate::Error::Unsupported) if it does not support them.
    fn check(&self, heads: Heads) -> Result<()>;

    /// Runs `work` on the backend's threads. `tokens` is the number of tokens of a pass that
    /// extends key-value caches, and `None` for all other work.
    fn run<R: Send>(&self, tokens: Option<usize>, work: impl FnOnce() -> R + Send) -> R;

    /// Creates one linear layer from parts with the same number of inputs. Their outputs are
    /// concatenated.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn linear(&self, parts: Vec<Weight>) -> Result<Self::Linear>;

    /// Creates the output layer, which follows the last norm and returns f32.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn output_layer(&self, matrix: Arc<Matrix>) -> Result<Self::Linear>;

    /// Creates an RMSNorm with `weight: (width,)` that precedes a linear layer.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn norm(&self, weight: Vec<f32>, eps: f32) -> Result<Self::Norm>;

    /// Creates the RMSNorm after the last layer, which returns f32.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn final_norm(&self, weight: Vec<f32>, eps: f32) -> Result<Self::Norm>;

    /// Creates the embedding table `(vocab, hidden)`.
    ///
    /// # Errors
    /// Returns an error if the table is quantised, or the device is out of memory.
    fn embedding(&self, table: &Arc<Matrix>) -> Result<Self::Embedding>;

    /// Returns rows of the table, `(ids, hidden)` f32.
    ///
    /// # Errors
    /// Returns an error if an id is outside the table, or if a tensor operation fails.
    fn embed(&self, table: &Self::Embedding, ids: &[u32]) -> Result<Tensor>;

    /// Creates the table of cosines and sines, both `(positions, half)`.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn rotary(&self, cos: Vec<f32>, sin: Vec<f32>, half: usize) -> Result<Self::Rotary>;

    /// Creates the tables for a pass over `sequences`. `rotary` must contain all their positions.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn tokens(
        &self,
        sequences: &Arc<Sequences>,
        rotary: &Arc<Self::Rotary>,
    ) -> Result<Self::Tokens>;

    /// Packs the tokens of a right-padded batch: `(batch, seq, width)` f32 to `(tokens, width)`.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn pack(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor>;

    /// Unpacks `(tokens, width)` to `(batch, seq, width)`; padding is zero.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn unpack(&self, x: &Tensor, sequences: &Sequences, seq: usize) -> Result<Tensor>;

    /// Returns the rows `index` of `x: (rows, width)` f32, with zeros for the index [`u32::MAX`].
    ///
    /// # Errors
    /// Returns an error if an index is outside `x`, or if a tensor operation fails.
    fn rows(&self, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        check_rows(index, x.dim(0)?)?;
        let none = Tensor::zeros((1, x.dim(1)?), x.dtype(), x.device())?;
        let index = with_no_row(index, x.dim(0)?, x.device())?;
        Ok(Tensor::cat(&[x, &none], 0)?.index_select(&index, 0)?)
    }

    /// Returns the gradient with respect to `x` of [`Self::rows`], given the gradient
    /// `dy: (index, width)` with respect to the result. The rows of `dy` are added in ascending
    /// order.
    ///
    /// # Errors
    /// Returns an error if an index is outside `x`, or if a tensor operation fails.
    fn rows_backward(&self, dy: &Tensor, index: &[u32], rows: usize) -> Result<Tensor> {
        check_rows(index, rows)?;
        let zeros = Tensor::zeros((rows + 1, dy.dim(1)?), dy.dtype(), dy.device())?;
        let index = with_no_row(index, rows, dy.device())?;
        Ok(zeros.index_add(&index, &dy.contiguous()?, 0)?.narrow(0, 0, rows)?)
    }

    /// Returns `silu(gate) * up` of `(tokens, 2 * width)`.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor>;

    /// Returns the result of `linear` for the norm of `x: (tokens, inputs)` f32.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn normed(&self, norm: &Self::Norm, linear: &Self::Linear, x: &Tensor) -> Result<Tensor> {
        linear.forward(&norm.forward(x)?, None)
    }

    /// Returns [`Self::swiglu`] of the result of [`Self::normed`] with the layers `gate_up`.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn gated(&self, norm: &Self::Norm, gate_up: &Self::Linear, x: &Tensor) -> Result<Tensor> {
        self.swiglu(&self.normed(norm, gate_up, x)?)
    }

    /// Returns the result of the output layer for the norm of `x: (tokens, inputs)` f32, in f32.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn scores(&self, norm: &Self::Norm, output: &Self::Linear, x: &Tensor) -> Result<Tensor> {
        output.forward_f32(&norm.forward(x)?)
    }

    /// Returns the gradient with respect to `gate_up`, given the gradient `dh: (tokens, width)`
    /// with respect to the result.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn swiglu_backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor>;

    /// Rotates the queries and keys of `qkv: (tokens, stride)` in place by their positions. If
    /// `inverse` is set, rotates backwards, which is the derivative of the rotation.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn rotate(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        inverse: bool,
    ) -> Result<()>;

    /// Returns causal attention `(tokens, queries * dim)` of the rotated `qkv: (tokens, stride)`.
    /// Every sequence also attends to the tokens of `shared` in this layer, which precede its own.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn attention(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<(Tensor, Self::Attended)>;

    /// Returns the gradient with respect to `qkv`, given the gradient `d_out` with respect to the
    /// result of [`Self::attention`]. No gradient is computed for `shared`.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
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

    /// Creates an empty cache. Set `differentiable` if [`Self::attention_backward`] will use the
    /// cache as `shared`.
    fn keys(&self, layers: usize, heads: Heads, differentiable: bool) -> Self::Keys;

    /// Returns whether `keys` belong to this kind of backend and to `layers` layers of the shape
    /// `heads`.
    fn fits(&self, keys: &Self::Keys, layers: usize, heads: Heads) -> bool;

    /// Reserves room for the pass's tokens in the caches of the sequences.
    ///
    /// # Errors
    /// Returns an error if the number of caches differs from the number of sequences, or if the
    /// device is out of memory.
    fn caches<'a>(
        &self,
        sequences: &Sequences,
        keys: Vec<&'a mut Self::Keys>,
    ) -> Result<Self::Caches<'a>>;

    /// Computes [`Self::attention`] of sequences that continue their caches. Call this only with
    /// unrotated `qkv`: the method rotates it ([`Self::rotate`]) and appends the tokens' keys and
    /// values to the caches. The values of `qkv` after the call are unspecified.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn attention_cached(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Self::Tokens,
        caches: &mut Self::Caches<'_>,
        layer: usize,
        shared: Option<&Self::Keys>,
    ) -> Result<Tensor>;

    /// Creates the buffers of [`Self::decode`] for a number of texts. Returns `None` if the host
    /// must choose the tokens from the scores.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn decoder(&self, texts: usize) -> Result<Option<Self::Decoder>>;

    /// Decodes one token of each text, appends it to the caches, and returns the ids with the
    /// highest score, the lowest one among equals.
    ///
    /// `layers` returns the scores `(texts, vocab)` for the embeddings of the tokens, and calls
    /// [`Self::end_stage`] after each layer. Its calls of this backend may be recorded and repeated
    /// in later steps, so it calls nothing else that computes with tensors.
    ///
    /// # Errors
    /// Returns the errors of `layers`, and an error if the arguments do not fit the decoder or a
    /// tensor operation fails.
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

/// Returns `index` with `rows` in place of [`u32::MAX`].
fn with_no_row(index: &[u32], rows: usize, device: &Device) -> Result<Tensor> {
    let index: Vec<u32> =
        index.iter().map(|&row| if row == u32::MAX { rows as u32 } else { row }).collect();
    Ok(Tensor::new(index, device)?)
}

/// Frozen linear layers `Y = X Wᵀ + b`. The only derivative is `dX = dY W`.
pub trait Linear: Debug + Send + Sync {
    /// Returns `X Wᵀ + b`, `(rows, inputs)` to `(rows, outputs)`. With an f32 `residual`, returns
    /// `X Wᵀ + b + residual` in f32.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// Returns `dY W`, `(rows, outputs)` to `(rows, inputs)`.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn backward(&self, dy: &Tensor) -> Result<Tensor>;

    /// Computes [`Self::forward`] with f32 input and output, for any dtype of the backend.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn forward_f32(&self, x: &Tensor) -> Result<Tensor>;

    /// Computes [`Self::backward`] with f32 input and output.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn backward_f32(&self, dy: &Tensor) -> Result<Tensor>;

    /// Returns the size of the weights in memory, in bytes.
    fn resident_bytes(&self) -> usize;
}

/// RMSNorm with a frozen weight.
pub trait Norm: Debug + Send + Sync {
    /// Returns `x / rms(x) * w`, `(tokens, width)`, for an f32 input.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Returns `dL/dx` in f32, plus `residual` if it is given, for the gradient `dy` with respect
    /// to the result.
    ///
    /// # Errors
    /// Returns an error if a tensor operation fails.
    fn backward(&self, x: &Tensor, dy: &Tensor, residual: Option<&Tensor>) -> Result<Tensor>;

    /// Returns the size of the weight in memory, in bytes.
    fn resident_bytes(&self) -> usize;
}

/// Keys and values of consecutive tokens of one sequence, for all layers.
pub trait Keys: Clone + Debug + Send + Sync + 'static {
    /// Returns the number of tokens.
    fn len(&self) -> usize;

    /// Returns whether there are no tokens.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all but the first `len` tokens. Does nothing if there are fewer.
    fn truncate(&mut self, len: usize);

    /// Reserves room for a total of `tokens` tokens.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    fn reserve(&mut self, tokens: usize) -> Result<()>;
}
