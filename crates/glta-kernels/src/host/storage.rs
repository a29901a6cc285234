use candle_core::{CpuStorage, Layout, Result as CandleResult, Storage, Tensor};

use crate::error::{Error, Result};

/// Returns the elements of a contiguous f32 tensor.
pub(crate) fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => candle_core::bail!("expected a contiguous tensor, got {layout:?}"),
    }
}

/// Calls `f` with the elements of a contiguous f32 tensor on the CPU.
pub(crate) fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(f(f32_slice(cpu, layout)?)),
        _ => Err(Error::Input("expected a tensor on the CPU".into())),
    }
}
