//! The passes of a model as differentiable operations of candle.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result as CandleResult, Shape, Storage, Tensor,
};
use glta_kernels::{Backend, Sequences};

use crate::error::Result;
use crate::network::{Network, Tape};
use crate::selected::Selected;

/// Returns a copy of `output` as the result of an operation whose value is already computed.
fn computed_cpu(output: &Tensor) -> CandleResult<(CpuStorage, Shape)> {
    let (storage, layout) = output.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok((cpu.try_clone(layout)?, layout.shape().clone())),
        _ => candle_core::bail!("the result is not on the CPU"),
    }
}

/// Does the same as [`computed_cpu`] on a CUDA device.
fn computed_cuda(output: &Tensor) -> CandleResult<(CudaStorage, Shape)> {
    let (storage, layout) = output.storage_and_layout();
    match &*storage {
        Storage::Cuda(cuda) => Ok((cuda.try_clone(layout)?, layout.shape().clone())),
        _ => candle_core::bail!("the result is not on a CUDA device"),
    }
}

/// Hidden states that are already computed, with their derivative.
pub(crate) struct Stack<B: Backend> {
    pub(crate) network: Arc<Network<B>>,
    /// Hidden states, `(batch, seq, hidden)`, or `(selected, hidden)`.
    pub(crate) output: Tensor,
    pub(crate) tape: Tape<B>,
    pub(crate) sequences: Arc<Sequences>,
    pub(crate) prefix: Option<Arc<B::Keys>>,
    pub(crate) selected: Option<Selected>,
}

impl<B: Backend> CustomOp1 for Stack<B> {
    fn name(&self) -> &'static str {
        "frozen-llama"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        computed_cpu(&self.output)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        computed_cuda(&self.output)
    }

    fn bwd(&self, embeds: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let _span = tracing::debug_span!("llm backward").entered();
        let Self { network, tape, sequences, prefix, selected, .. } = self;
        let backend = &network.backend;
        let result: Result<Tensor> = backend.run(None, || {
            let (_, seq, _) = embeds.dims3()?;
            let dy = match selected {
                None => backend.pack(&grad.detach(), sequences)?,
                Some(_) => grad.detach().contiguous()?,
            };
            let (prefix, selected) = (prefix.as_deref(), selected.as_ref());
            let dx = network.backward(tape, sequences, prefix, selected, &dy)?;
            Ok(backend.unpack(&dx, sequences, seq)?)
        });
        result.map(Some).map_err(candle_core::Error::wrap)
    }
}

/// Rows that are already gathered, with their derivative.
pub(crate) struct Rows<B: Backend> {
    pub(crate) network: Arc<Network<B>>,
    /// `(index, width)`
    pub(crate) output: Tensor,
    pub(crate) index: Vec<u32>,
}

impl<B: Backend> CustomOp1 for Rows<B> {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        computed_cpu(&self.output)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        computed_cuda(&self.output)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let backend = &self.network.backend;
        let rows = x.dim(0)?;
        let run = || backend.rows_backward(&grad.detach(), &self.index, rows);
        backend.run(None, run).map(Some).map_err(candle_core::Error::wrap)
    }
}

/// Scores that are already computed, with the derivative of the output layer.
pub(crate) struct Logits<B: Backend> {
    pub(crate) network: Arc<Network<B>>,
    /// Scores, `(rows, vocab)`.
    pub(crate) output: Tensor,
}

impl<B: Backend> CustomOp1 for Logits<B> {
    fn name(&self) -> &'static str {
        "frozen-logits"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        computed_cpu(&self.output)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> CandleResult<(CudaStorage, Shape)> {
        computed_cuda(&self.output)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let run = || self.network.logits_backward(&grad.detach().contiguous()?);
        let result: Result<Tensor> = self.network.backend.run(None, run);
        result.map(Some).map_err(candle_core::Error::wrap)
    }
}
