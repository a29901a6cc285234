//! All layers of a batch, forward and backward, as one differentiable op.

use crate::cache::SequenceKeys;
use crate::cuda::attention::KeySource;
use crate::cuda::{self, Accelerator, elementwise};
use crate::error::{Error, Result};
use crate::layer::{Activations, LayerKeys, Tokens};
use crate::model::{Inner, Prefix};
use crate::ops::{Keys, f32_slice};
use crate::rope::RopeTable;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result as CandleResult, Shape, Storage, Tensor,
};
use std::sync::Arc;

/// A right-padded batch: which of its `(batch, seq)` tokens are real.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    seq: usize,
    /// First packed token of every row, and the number of packed tokens.
    pub(crate) starts: Vec<usize>,
    pub(crate) positions: Vec<u32>,
}

impl Batch {
    /// Rows of `lengths` real tokens; the positions of row `r` start at `offset(r)`.
    pub(crate) fn new(seq: usize, lengths: &[usize], offset: impl Fn(usize) -> usize) -> Self {
        let mut starts = vec![0];
        let mut positions = Vec::new();
        for (row, &length) in lengths.iter().enumerate() {
            let offset = offset(row);
            positions.extend((offset..offset + length).map(|p| p as u32));
            starts.push(positions.len());
        }
        Self { seq, starts, positions }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.positions.len()
    }

    /// `(batch, seq, width)` f32 to `(tokens, width)`: the real tokens.
    pub(crate) fn pack(&self, x: &Tensor, accelerator: Option<&Accelerator>) -> Result<Tensor> {
        let x = x.detach().contiguous()?;
        let Some(accelerator) = accelerator else {
            return Ok(x.apply_op1_no_bwd(&Pack(self))?);
        };
        let mut index = Vec::with_capacity(self.tokens());
        for (row, w) in self.starts.windows(2).enumerate() {
            index.extend((0..w[1] - w[0]).map(|at| (row * self.seq + at) as u32));
        }
        let index = accelerator.table(index)?;
        elementwise::gather_rows(&accelerator.driver, &x.flatten(0, 1)?, &index)
    }

    /// `(tokens, width)` to `(batch, seq, width)`, zero where padded.
    pub(crate) fn unpack(&self, x: &Tensor, accelerator: Option<&Accelerator>) -> Result<Tensor> {
        let Some(accelerator) = accelerator else {
            return Ok(x.apply_op1_no_bwd(&Unpack(self))?);
        };
        let rows = self.starts.len() - 1;
        let mut index = vec![u32::MAX; rows * self.seq];
        for (row, w) in index.chunks_exact_mut(self.seq).zip(self.starts.windows(2)) {
            row.iter_mut().zip(w[0]..w[1]).for_each(|(to, token)| *to = token as u32);
        }
        let y = elementwise::gather_rows(&accelerator.driver, x, &accelerator.table(index)?)?;
        Ok(y.reshape((rows, self.seq, ()))?)
    }
}

struct Pack<'a>(&'a Batch);
struct Unpack<'a>(&'a Batch);

impl CustomOp1 for Pack<'_> {
    fn name(&self) -> &'static str {
        "pack-rows"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (_, seq, width) = l.shape().dims3()?;
        let x = f32_slice(x, l)?;
        let mut out = Vec::with_capacity(self.0.tokens() * width);
        for (row, w) in self.0.starts.windows(2).enumerate() {
            let at = row * seq * width;
            out.extend_from_slice(&x[at..at + (w[1] - w[0]) * width]);
        }
        Ok((CpuStorage::F32(out), (self.0.tokens(), width).into()))
    }
}

impl CustomOp1 for Unpack<'_> {
    fn name(&self) -> &'static str {
        "unpack-rows"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let (_, width) = l.shape().dims2()?;
        let x = f32_slice(x, l)?;
        let rows = self.0.starts.len() - 1;
        let mut out = Vec::with_capacity(rows * self.0.seq * width);
        for (row, w) in self.0.starts.windows(2).enumerate() {
            out.extend_from_slice(&x[w[0] * width..w[1] * width]);
            out.resize((row + 1) * self.0.seq * width, 0.0);
        }
        Ok((CpuStorage::F32(out), (rows, self.0.seq, width).into()))
    }
}

/// What to keep of the forward pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Inputs,
    Activations,
}

/// What was kept.
pub(crate) struct Tape {
    /// Input of every layer, and the output of the last, `(tokens, hidden)`.
    inputs: Vec<Tensor>,
    /// Empty where layers are computed again.
    activations: Vec<Activations>,
}

/// The tokens' own keys behind those of a prefix.
fn own_keys<'a>(prefix: Option<&'a Prefix>, layer: usize, tokens: &Tokens) -> LayerKeys<'a> {
    let shared = prefix.map(Prefix::keys);
    match tokens.device {
        None => {
            LayerKeys::Host(Keys { shared: shared.and_then(|keys| keys.host(layer)), cached: None })
        }
        Some(_) => {
            LayerKeys::Device(KeySource { layer, shared: shared.and_then(SequenceKeys::device) })
        }
    }
}

impl Inner {
    /// Where packed tokens belong, on the device of the model too.
    fn tokens<'a>(
        &self,
        starts: &'a [usize],
        positions: &'a [u32],
        rope: &'a Arc<RopeTable>,
    ) -> Result<Tokens<'a>> {
        let device = match &self.accelerator {
            None => None,
            Some(accelerator) => Some(cuda::Tokens::upload(accelerator, starts, positions, rope)?),
        };
        Ok(Tokens { starts, positions, rope, device })
    }

    /// Runs the layers and the final norm on packed embeddings.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        batch: &Batch,
        prefix: Option<&Prefix>,
        keep: Keep,
    ) -> Result<(Tensor, Tape)> {
        let rope = self.rope_for(&batch.positions)?;
        let tokens = self.tokens(&batch.starts, &batch.positions, &rope)?;
        let mut tape = Tape { inputs: Vec::new(), activations: Vec::new() };
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            let keys = own_keys(prefix, i, &tokens);
            let a = layer.attend(&x, layer.project(&x, &tokens)?, &tokens, keys)?;
            let y = layer.finish(&a)?;
            if keep != Keep::Nothing {
                tape.inputs.push(x);
            }
            if keep == Keep::Activations {
                tape.activations.push(a);
            }
            x = y;
        }
        let out = self.norm.forward(&x)?;
        if keep != Keep::Nothing {
            tape.inputs.push(x);
        }
        Ok((out, tape))
    }

    /// Gradient at the packed embeddings given the one at the output.
    pub(crate) fn backward(
        &self,
        tape: &Tape,
        batch: &Batch,
        prefix: Option<&Prefix>,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let rope = self.rope_for(&batch.positions)?;
        let tokens = self.tokens(&batch.starts, &batch.positions, &rope)?;
        let last = tape
            .inputs
            .last()
            .ok_or_else(|| Error::Input("backward of a pass that kept nothing".into()))?;
        let mut dx = self.norm.backward(last, dy, None)?;
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let x = &tape.inputs[i];
            let keys = own_keys(prefix, i, &tokens);
            let again;
            let a = match tape.activations.get(i) {
                Some(a) => a,
                None => {
                    again = layer.attend(x, layer.project(x, &tokens)?, &tokens, keys)?;
                    &again
                }
            };
            dx = layer.backward(x, a, &dx, &tokens, keys)?;
        }
        Ok(dx)
    }

    /// Runs the first `layers` layers on packed embeddings, appending keys and values
    /// to the sequences' caches, which continue after the prefix; returns the states
    /// before the final norm.
    pub(crate) fn forward_cached(
        &self,
        x: Tensor,
        starts: &[usize],
        positions: &[u32],
        prefix: Option<&Prefix>,
        layers: usize,
        caches: &mut [&mut SequenceKeys],
    ) -> Result<Tensor> {
        let rope = self.rope_for(positions)?;
        let mut tokens = self.tokens(starts, positions, &rope)?;
        if let (Some(accelerator), Some(device)) = (&self.accelerator, tokens.device.take()) {
            for (cache, w) in caches.iter_mut().zip(starts.windows(2)) {
                cache.grow_device(w[1] - w[0])?;
            }
            let keys = caches.iter().filter_map(|c| c.device());
            tokens.device = Some(device.with_caches(accelerator, keys)?);
        }
        let mut x = x;
        for (i, layer) in self.layers[..layers].iter().enumerate() {
            let qkv = layer.project(&x, &tokens)?;
            let own = own_keys(prefix, i, &tokens);
            let cached: Vec<_>;
            let keys = match (own, &tokens.device) {
                (LayerKeys::Host(own), _) => {
                    let heads = layer.heads();
                    crate::ops::with_f32(&qkv, |qkv| {
                        let blocks = caches.iter_mut().filter_map(|c| c.host_mut(i));
                        for (block, w) in blocks.zip(starts.windows(2)) {
                            let rows = &qkv[w[0] * heads.stride()..w[1] * heads.stride()];
                            block.append(rows, heads.stride(), heads.key_at(), heads.value_at());
                        }
                    })?;
                    cached = caches.iter().filter_map(|c| c.host(i)).collect();
                    LayerKeys::Host(Keys { cached: Some(&cached), ..own })
                }
                (own, Some(device)) => {
                    cuda::attention::append(&qkv, layer.heads(), device, i)?;
                    own
                }
                (own, None) => own,
            };
            x = layer.finish(&layer.attend(&x, qkv, &tokens, keys)?)?;
        }
        Ok(x)
    }
}

/// What an op whose result is there already gives candle: a copy, f32 on the CPU.
pub(crate) fn computed_cpu(output: &Tensor) -> CandleResult<(CpuStorage, Shape)> {
    let (storage, layout) = output.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => {
            Ok((CpuStorage::F32(f32_slice(cpu, layout)?.to_vec()), layout.shape().clone()))
        }
        _ => candle_core::bail!("the result is not on the CPU"),
    }
}

/// [`computed_cpu`] on a CUDA device.
pub(crate) fn computed_cuda(output: &Tensor) -> CandleResult<(CudaStorage, Shape)> {
    let (storage, layout) = output.storage_and_layout();
    match &*storage {
        Storage::Cuda(cuda) => Ok((cuda.try_clone(layout)?, layout.shape().clone())),
        _ => candle_core::bail!("the result is not on a CUDA device"),
    }
}

/// Hidden states that were already computed, with the derivative that belongs
/// to them.
pub(crate) struct Stack {
    pub(crate) model: Arc<Inner>,
    pub(crate) output: Tensor,
    pub(crate) tape: Tape,
    pub(crate) batch: Batch,
    pub(crate) prefix: Option<Prefix>,
}

impl CustomOp1 for Stack {
    fn name(&self) -> &'static str {
        "frozen-llama"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        computed_cpu(&self.output)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        computed_cuda(&self.output)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let _span = tracing::debug_span!("llm backward").entered();
        let run = || {
            let accelerator = self.model.accelerator.as_ref();
            let dy = self.batch.pack(grad, accelerator)?;
            let dx = self.model.backward(&self.tape, &self.batch, self.prefix.as_ref(), &dy)?;
            self.batch.unpack(&dx, accelerator)
        };
        let result: Result<Tensor> = self.model.enter(run);
        result.map(Some).map_err(candle_core::Error::wrap)
    }
}
