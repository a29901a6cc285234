//! All layers of a batch, forward and backward, as one differentiable op.

use crate::error::{Error, Result};
use crate::kernel::keys::KeyBlock;
use crate::layer::{Activations, Tokens};
use crate::model::{Inner, Prefix};
use crate::ops::{Keys, f32_slice};
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};
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
    /// Rows of `lengths` real tokens whose positions start at `offset`.
    pub(crate) fn new(seq: usize, lengths: &[usize], offset: usize) -> Self {
        let mut starts = vec![0];
        let mut positions = Vec::new();
        for &length in lengths {
            positions.extend((offset..offset + length).map(|p| p as u32));
            starts.push(positions.len());
        }
        Self { seq, starts, positions }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.positions.len()
    }

    /// `(batch, seq, width)` to `(tokens, width)`: the real tokens.
    pub(crate) fn pack(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.detach().contiguous()?.apply_op1_no_bwd(&Pack(self))?)
    }

    /// `(tokens, width)` to `(batch, seq, width)`, zero where padded.
    pub(crate) fn unpack(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.apply_op1_no_bwd(&Unpack(self))?)
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

fn own_keys(prefix: Option<&Prefix>, layer: usize) -> Keys<'_> {
    Keys { shared: prefix.map(|p| p.block(layer)), cached: None }
}

impl Inner {
    /// Runs the layers and the final norm on packed embeddings.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        batch: &Batch,
        prefix: Option<&Prefix>,
        keep: Keep,
    ) -> Result<(Tensor, Tape)> {
        let rope = self.rope_for(&batch.positions)?;
        let tokens = Tokens { starts: &batch.starts, positions: &batch.positions, rope: &rope };
        let mut tape = Tape { inputs: Vec::new(), activations: Vec::new() };
        let mut x = x;
        for (i, layer) in self.layers.iter().enumerate() {
            let keys = own_keys(prefix, i);
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
        let tokens = Tokens { starts: &batch.starts, positions: &batch.positions, rope: &rope };
        let last = tape
            .inputs
            .last()
            .ok_or_else(|| Error::Input("backward of a pass that kept nothing".into()))?;
        let mut dx = self.norm.backward(last, dy, &dy.zeros_like()?)?;
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let x = &tape.inputs[i];
            let keys = own_keys(prefix, i);
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

    /// Runs the layers on packed embeddings, appending keys and values to the
    /// caches, `caches[layer][sequence]`, which continue after the prefix; returns the states before the final
    /// norm.
    pub(crate) fn forward_cached(
        &self,
        x: Tensor,
        starts: &[usize],
        positions: &[u32],
        prefix: Option<&Prefix>,
        caches: &mut [Vec<KeyBlock>],
    ) -> Result<Tensor> {
        let rope = self.rope_for(positions)?;
        let tokens = Tokens { starts, positions, rope: &rope };
        let mut x = x;
        for (i, (layer, cache)) in self.layers.iter().zip(caches).enumerate() {
            let qkv = layer.project(&x, &tokens)?;
            let heads = layer.heads();
            crate::ops::with_f32(&qkv, |qkv| {
                for (block, w) in cache.iter_mut().zip(starts.windows(2)) {
                    let rows = &qkv[w[0] * heads.stride()..w[1] * heads.stride()];
                    block.append(rows, heads.stride(), heads.key_at(), heads.value_at());
                }
            })?;
            let keys = Keys { cached: Some(cache), ..own_keys(prefix, i) };
            x = layer.finish(&layer.attend(&x, qkv, &tokens, keys)?)?;
        }
        Ok(x)
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
        let (storage, layout) = self.output.storage_and_layout();
        match &*storage {
            candle_core::Storage::Cpu(cpu) => {
                Ok((CpuStorage::F32(f32_slice(cpu, layout)?.to_vec()), layout.shape().clone()))
            }
            _ => candle_core::bail!("frozen-llama: the output is not on the CPU"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let _span = tracing::debug_span!("llm backward").entered();
        let run = || {
            let dy = self.batch.pack(grad)?;
            let dx = self.model.backward(&self.tape, &self.batch, self.prefix.as_ref(), &dy)?;
            self.batch.unpack(&dx)
        };
        let result: Result<Tensor> = crate::pool::enter(run);
        result.map(Some).map_err(candle_core::Error::wrap)
    }
}
