//! The model as differentiable operations of candle.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result as CandleResult, Shape, Storage, Tensor,
};
use glta_kernels::{Backend, Sequences};

use crate::error::Result;
use crate::network::{Network, Tape};

/// Result of a candle operation whose output is already computed: a copy of it.
fn computed_cpu(output: &Tensor) -> CandleResult<(CpuStorage, Shape)> {
    let (storage, layout) = output.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok((cpu.try_clone(layout)?, layout.shape().clone())),
        _ => candle_core::bail!("the result is not on the CPU"),
    }
}

/// [`computed_cpu`] on a CUDA device.
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
    /// `(batch, seq, hidden)`
    pub(crate) output: Tensor,
    pub(crate) tape: Tape<B>,
    pub(crate) sequences: Arc<Sequences>,
    pub(crate) prefix: Option<Arc<B::Keys>>,
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

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let _span = tracing::debug_span!("llm backward").entered();
        let Self { network, tape, sequences, prefix, .. } = self;
        let backend = &network.backend;
        let result: Result<Tensor> = backend.run(None, || {
            let (_, seq, _) = grad.dims3()?;
            let dy = backend.pack(&grad.detach(), sequences)?;
            let dx = network.backward(tape, sequences, prefix.as_deref(), &dy)?;
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
    /// `(rows, vocab)`
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
