//! Ranks that sum tensors between their GPUs with NCCL.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::safe::{Comm, Id, NcclType, ReduceOp};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, Device, DeviceLocation, Layout, Shape, Tensor,
};

use crate::{Communicator, Error, Result};

/// A communicator for ranks with one GPU each. NCCL sums the tensors on these GPUs. All other calls
/// use the inner communicator.
pub struct Nccl {
    inner: Arc<dyn Communicator>,
    location: DeviceLocation,
    group: Mutex<Group>,
}

/// NCCL's communicator for all ranks.
struct Group(Comm);

// SAFETY: NCCL allows any thread to use a communicator, one at a time; the mutex ensures this.
unsafe impl Send for Group {}

impl Nccl {
    /// Connects the GPUs of all ranks. `device` is the GPU of this rank, and no other rank on the
    /// machine may use it. All ranks of `inner` must make this call.
    ///
    /// # Errors
    /// Returns an error if `device` is not a GPU, or if NCCL does not start on this rank or on rank
    /// 0.
    pub fn new(inner: Arc<dyn Communicator>, device: &Device) -> Result<Self> {
        let stream = device.as_cuda_device()?.cuda_stream();
        // NCCL uses the current GPU of the thread; a new thread has GPU 0.
        let bound = stream.context().bind_to_thread();
        bound.map_err(|e| Error::Nccl(format!("cannot use the device of this rank: {e}")))?;
        let own = if inner.is_root() { Some(Id::new()) } else { None };
        // If rank 0 fails, the other ranks must not wait for its id.
        let bytes: Vec<u8> = match &own {
            Some(Ok(id)) => id.internal().iter().flat_map(|c| c.to_ne_bytes()).collect(),
            _ => Vec::new(),
        };
        let all = inner.all_gather(&bytes)?;
        if let Some(Err(error)) = own {
            return Err(failed(error));
        }
        let mut id = [0; 128];
        let bytes = all.first().filter(|bytes| bytes.len() == id.len());
        let bytes = bytes.ok_or_else(|| Error::Nccl("rank 0 could not start it".into()))?;
        for (to, &from) in id.iter_mut().zip(bytes) {
            *to = from as core::ffi::c_char;
        }
        let group = Comm::from_rank(stream, inner.rank(), inner.size(), Id::uninit(id));
        let group = Mutex::new(Group(group.map_err(failed)?));
        Ok(Self { inner, location: device.location(), group })
    }
}

fn failed(error: NcclError) -> Error {
    Error::Nccl(format!("{error:?}"))
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl")
            .field("inner", &self.inner)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        self.inner.all_reduce(values)
    }

    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        // By the contract of collective calls, such a tensor is on another device on every rank.
        let here = tensor.device().location() == self.location;
        if !here || !matches!(tensor.dtype(), DType::F32 | DType::F64) {
            return self.inner.all_reduce_tensor(tensor);
        }
        Ok(tensor.contiguous()?.apply_op1_no_bwd(&AllReduce(&self.group))?)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.all_gather(bytes)
    }

    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }

    fn abort(&self, code: i32) -> ! {
        self.inner.abort(code)
    }
}

/// The sum over all ranks as an operation on the device's own stream.
struct AllReduce<'a>(&'a Mutex<Group>);

impl AllReduce<'_> {
    fn sum<T>(&self, storage: &CudaStorage, range: Range<usize>) -> candle_core::Result<CudaStorage>
    where
        T: CudaDType + NcclType + DeviceRepr + ValidAsZeroBits,
    {
        let device = storage.device.clone();
        let own = storage.as_cuda_slice::<T>()?.slice(range.clone());
        let mut sum = device.alloc_zeros::<T>(range.len())?;
        let group = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let done = group.0.all_reduce(&own, &mut sum, &ReduceOp::Sum);
        done.map_err(|error| candle_core::Error::Msg(format!("NCCL: {error:?}")))?;
        Ok(CudaStorage::wrap_cuda_slice(sum, device))
    }
}

impl CustomOp1 for AllReduce<'_> {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("NCCL sums tensors on GPUs only")
    }

    fn cuda_fwd(
        &self,
        storage: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("NCCL needs a contiguous tensor")
        };
        let sum = match storage.dtype() {
            DType::F64 => self.sum::<f64>(storage, start..end)?,
            _ => self.sum::<f32>(storage, start..end)?,
        };
        Ok((sum, layout.shape().clone()))
    }
}
