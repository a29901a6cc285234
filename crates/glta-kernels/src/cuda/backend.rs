use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::attention::{self, Attended, KeySource};
use super::caches::Caches;
use super::decoder::Decoder;
use super::device::Cuda;
use super::elementwise;
use super::keys::Keys;
use super::launch::expect_f32;
use super::linear::{self, Linear};
use super::norm::RmsNorm;
use super::quantized::Normed;
use super::rotary::Rotary;
use super::tokens::Tokens;
use crate::arguments::{
    check_caches, check_ids, check_positions, check_rotated, check_rows, expect_shape,
    rotary_positions,
};
use crate::backend::{Backend, Linear as _, Next, Norm as _};
use crate::error::{Error, Result};
use crate::heads::Heads;
use crate::sequences::Sequences;
use crate::weights::{Matrix, Weight};

impl Cuda {
    /// Returns an error for arguments that the attention kernels would misread.
    fn expect(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<()> {
        self.check(heads)?;
        heads.expect_projection(qkv, tokens.len())?;
        match shared {
            Some(keys) => keys.expect(self, layer, heads),
            None => Ok(()),
        }
    }
}

impl Backend for Cuda {
    type Linear = Linear;
    type Norm = RmsNorm;
    type Embedding = Tensor;
    type Rotary = Rotary;
    type Tokens = Tokens;
    type Keys = Keys;
    type Caches<'a> = Caches<'a>;
    type Attended = Attended;
    type Decoder = Decoder;

    fn device(&self) -> &Device {
        &self.device
    }

    fn free_memory(&self) -> Result<Option<usize>> {
        self.stream.free_memory()
    }

    fn check(&self, heads: Heads) -> Result<()> {
        heads.validate()?;
        attention::check(heads)
    }

    /// Runs on this thread: a device of [`Device::new_cuda`] has one stream per thread and does not
    /// synchronise them.
    fn run<R: Send>(&self, _: Option<usize>, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    fn linear(&self, parts: Vec<Weight>) -> Result<Linear> {
        Linear::upload(self, &parts)
    }

    fn output_layer(&self, matrix: Arc<Matrix>) -> Result<Linear> {
        // Scores are f32, so packed weights are multiplied in f32.
        let cuda = if matrix.is_packed() { &self.with_dtype(DType::F32) } else { self };
        Linear::upload(cuda, &[(matrix, None)])
    }

    fn norm(&self, weight: Vec<f32>, eps: f32) -> Result<RmsNorm> {
        RmsNorm::upload(self, &weight, eps)
    }

    fn final_norm(&self, weight: Vec<f32>, eps: f32) -> Result<RmsNorm> {
        RmsNorm::upload(&self.with_dtype(DType::F32), &weight, eps)
    }

    fn embedding(&self, table: &Arc<Matrix>) -> Result<Tensor> {
        table.expect_dense()?;
        linear::table(self, table)
    }

    fn embed(&self, table: &Tensor, ids: &[u32]) -> Result<Tensor> {
        check_ids(ids, table.dim(0)?)?;
        elementwise::gather_rows(&self.stream, table, &self.table(ids.to_vec())?)
    }

    fn rotary(&self, cos: Vec<f32>, sin: Vec<f32>, half: usize) -> Result<Rotary> {
        let positions = rotary_positions(&cos, &sin, half)?;
        let upload = |values| Tensor::from_vec(values, (positions, half), &self.device);
        Ok(Rotary { cos: upload(cos)?, sin: upload(sin)?, positions })
    }

    fn tokens(&self, sequences: &Arc<Sequences>, rotary: &Arc<Rotary>) -> Result<Tokens> {
        check_positions(rotary.positions, sequences.context())?;
        Tokens::upload(self, sequences, rotary)
    }

    fn pack(&self, x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let (rows, seq, _) = x.dims3()?;
        sequences.expect_padded(rows, seq)?;
        let mut index = Vec::with_capacity(sequences.tokens());
        for (row, w) in sequences.starts().windows(2).enumerate() {
            index.extend((0..w[1] - w[0]).map(|at| (row * seq + at) as u32));
        }
        let rows = x.contiguous()?.flatten(0, 1)?;
        elementwise::gather_rows(&self.stream, &rows, &self.table(index)?)
    }

    fn unpack(&self, x: &Tensor, sequences: &Sequences, seq: usize) -> Result<Tensor> {
        let (rows, (_, width)) = (sequences.len(), x.dims2()?);
        sequences.expect_padded(rows, seq)?;
        expect_shape("the packed tokens", x, sequences.tokens(), width)?;
        let mut index = vec![u32::MAX; rows * seq];
        for (row, w) in index.chunks_exact_mut(seq).zip(sequences.starts().windows(2)) {
            row.iter_mut().zip(w[0]..w[1]).for_each(|(to, token)| *to = token as u32);
        }
        let y = elementwise::gather_rows(&self.stream, x, &self.table(index)?)?;
        Ok(y.reshape((rows, seq, width))?)
    }

    fn rows(&self, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        check_rows(index, x.dim(0)?)?;
        expect_f32("the rows", Some(x))?;
        elementwise::gather_rows(&self.stream, &x.contiguous()?, &self.table(index.to_vec())?)
    }

    fn rows_backward(&self, dy: &Tensor, index: &[u32], rows: usize) -> Result<Tensor> {
        expect_shape("the gradient of rows", dy, index.len(), dy.dim(1)?)?;
        check_rows(index, rows)?;
        elementwise::index_add(self, &dy.contiguous()?, index, rows)
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        elementwise::swiglu(&self.stream, gate_up)
    }

    fn normed(&self, norm: &RmsNorm, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        expect_f32("the input of a norm", Some(x))?;
        match linear.fused(x, Some(norm.normed()), false)? {
            Some(y) => Ok(y),
            None => linear.forward(&norm.forward(x)?, None),
        }
    }

    fn gated(&self, norm: &RmsNorm, gate_up: &Linear, x: &Tensor) -> Result<Tensor> {
        expect_f32("the input of a norm", Some(x))?;
        if let Some(h) = gate_up.fused(x, Some(norm.normed()), true)? {
            return Ok(h);
        }
        let x = norm.forward(x)?;
        match gate_up.fused(&x, None, true)? {
            Some(h) => Ok(h),
            None => self.swiglu(&gate_up.forward(&x, None)?),
        }
    }

    fn scores(&self, norm: &RmsNorm, output: &Linear, x: &Tensor) -> Result<Tensor> {
        // Rounded by the norm, not by a launch of its own.
        let Normed { weight, eps } = norm.normed();
        output.in_f32(&elementwise::rms_norm(&self.stream, x, weight, eps, output.dtype())?)
    }

    fn swiglu_backward(&self, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor> {
        let (rows, width) = gate_up.dims2()?;
        expect_shape("the gradient of the activation", dh, rows, width / 2)?;
        elementwise::swiglu_backward(&self.stream, gate_up, dh)
    }

    fn rotate(&self, qkv: &Tensor, heads: Heads, tokens: &Tokens, inverse: bool) -> Result<()> {
        heads.expect_projection(qkv, tokens.len())?;
        check_rotated(tokens.rotary.cos.dim(1)?, heads.dim)?;
        attention::rotate(self, qkv, heads, tokens, inverse)
    }

    fn attention(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<(Tensor, Attended)> {
        self.expect(qkv, heads, tokens, layer, shared)?;
        let attended = attention::forward(self, qkv, heads, tokens, KeySource { layer, shared })?;
        Ok((attended.out().clone(), attended))
    }

    fn attention_backward(
        &self,
        qkv: &Tensor,
        attended: &Attended,
        d_out: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<Tensor> {
        self.expect(qkv, heads, tokens, layer, shared)?;
        let width = heads.queries * heads.dim;
        expect_shape("the gradient of attention", d_out, tokens.len(), width)?;
        let source = KeySource { layer, shared };
        attention::backward(self, qkv, attended, d_out, heads, tokens, source)
    }

    fn keys(&self, layers: usize, heads: Heads, _: bool) -> Keys {
        Keys::new(self, layers, heads)
    }

    fn fits(&self, keys: &Keys, layers: usize, heads: Heads) -> bool {
        keys.fits(self, layers, heads)
    }

    fn caches<'a>(&self, sequences: &Sequences, keys: Vec<&'a mut Keys>) -> Result<Caches<'a>> {
        Caches::upload(self, sequences, keys)
    }

    fn attention_cached(
        &self,
        qkv: &Tensor,
        heads: Heads,
        tokens: &Tokens,
        caches: &mut Caches<'_>,
        layer: usize,
        shared: Option<&Keys>,
    ) -> Result<Tensor> {
        self.expect(qkv, heads, tokens, layer, shared)?;
        check_caches(caches.table.elem_count() / 2, tokens.sequence_count())?;
        if !caches.shape.is_none_or(|shape| shape.has(layer, heads)) {
            return Err(Error::Input(format!("the caches have no layer {layer} of {heads:?}")));
        }
        check_rotated(tokens.rotary.cos.dim(1)?, heads.dim)?;
        let source = KeySource { layer, shared };
        attention::forward_cached(self, qkv, heads, tokens, caches, source)
    }

    fn decoder(&self, texts: usize) -> Result<Option<Decoder>> {
        Decoder::new(self, texts)
    }

    fn decode<E: From<Error>>(
        &self,
        decoder: &mut Decoder,
        next: Next<'_, Self>,
        layers: impl Fn(Tensor, &Tokens, &mut Caches<'_>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<u32>, E> {
        decoder.decode(self, next, layers)
    }

    fn end_stage(&self) {
        self.stream.end_stage();
    }
}
