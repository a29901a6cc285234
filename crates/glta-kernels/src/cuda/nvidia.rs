//! The driver for NVIDIA GPUs.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, OnceLock};

use candle_core::cuda_backend::cudarc::cublas::{self, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg, SyncOnDrop, sys,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Storage, Tensor};

use super::driver::Driver;
use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch, unwritten};
use crate::error::{Error, Result};

/// Shared memory that a kernel may use without an attribute.
const SHARED_UNASKED: usize = 48 << 10;

fn cuda(device: &Device) -> Result<&CudaDevice> {
    match device {
        Device::Cuda(device) => Ok(device),
        other => Err(Error::Input(format!("expected a CUDA device, got {:?}", other.location()))),
    }
}

/// Functions of one file of kernels.
type Functions = HashMap<(Kernel, DType), CudaFunction>;

/// A device whose kernels are loaded.
struct Nvidia {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    /// Indexed by [`Source::index`]; launches read them without a lock.
    files: [OnceLock<Functions>; Source::COUNT],
}

impl fmt::Debug for Nvidia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nvidia").field(&self.device).finish()
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // If two threads load a file at once, the device keeps one module, and dropping these
        // functions unloads the other. No kernel may be running then.
        let _ = self.stream.context().synchronize();
    }
}

/// The memory pool of a device.
///
/// # Safety
/// The device must exist.
unsafe fn pool(device: sys::CUdevice) -> Result<sys::CUmemoryPool> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: writes a handle.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, device) }.result().w()?;
    Ok(pool)
}

/// Checks that the kernels support this device. Sets its allocator to keep freed memory, because
/// every pass allocates the same sizes, and turns its event tracking off.
pub(super) fn open(device: &Device) -> Result<Arc<dyn Driver>> {
    let device = cuda(device)?;
    let stream = device.cuda_stream();
    let context = stream.context();
    let (major, minor) = context.compute_capability().w()?;
    if major < 8 {
        return Err(Error::Unsupported {
            what: format!("CUDA device of compute capability {major}.{minor}"),
            supported: "8.0 and above",
        });
    }
    let mut keep = u64::MAX;
    // SAFETY: the device's own pool, with an attribute of this type.
    unsafe {
        let pool = pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast()).result().w()?;
    }
    // Otherwise each use of a tensor would wait for an event and record another.
    // SAFETY: candle uses the tensors of a device on its one stream, which preserves the order;
    // `Cuda::new` documents the duties of other streams.
    unsafe { device.disable_event_tracking() };
    let files = [const { OnceLock::new() }; Source::COUNT];
    Ok(Arc::new(Nvidia { device: device.clone(), stream, files }))
}

/// Bytes of the tensors that a kernel reads and writes, if it accesses each element once.
fn bytes(args: &[Arg]) -> usize {
    let bytes = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
    let moved = |arg: &Arg| match arg {
        Arg::In(t) | Arg::Out(t) | Arg::Table(t, _) => bytes(t),
        Arg::InOut(t) => 2 * bytes(t),
        Arg::Null | Arg::U32(_) | Arg::F32(_) => 0,
    };
    args.iter().map(moved).sum()
}

/// Address of the first element, and guards that order this use after others.
fn pointer<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a CudaSlice<T>, layout: &Layout) -> (u64, SyncOnDrop<'a>) {
        let (start, guard) = slice.device_ptr(slice.stream());
        (start + (layout.start_offset() * size_of::<T>()) as u64, guard)
    }
    match &storage.slice {
        CudaStorageSlice::U8(s) => Ok(of(s, layout)),
        CudaStorageSlice::U32(s) => Ok(of(s, layout)),
        CudaStorageSlice::I64(s) => Ok(of(s, layout)),
        CudaStorageSlice::BF16(s) => Ok(of(s, layout)),
        CudaStorageSlice::F16(s) => Ok(of(s, layout)),
        CudaStorageSlice::F32(s) => Ok(of(s, layout)),
        _ => Err(Error::Input("expected a tensor of f32, f16, bf16, u8, u32 or i64".into())),
    }
}

fn on_cuda(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        _ => Err(Error::Input("expected a tensor on a CUDA device".into())),
    }
}

enum Value {
    Pointer(u64),
    U32(u32),
    F32(f32),
}

impl Nvidia {
    fn function(&self, kernel: Kernel, dtype: DType) -> Result<&CudaFunction> {
        let functions = self.files[kernel.source().index()].get();
        functions.and_then(|f| f.get(&(kernel, dtype))).ok_or_else(|| {
            Error::Input(format!("the kernel {kernel:?} of {dtype:?} is not loaded"))
        })
    }
}

impl Driver for Nvidia {
    fn load(&self, source: Source) -> Result<()> {
        let file = &self.files[source.index()];
        if file.get().is_some() {
            return Ok(());
        }
        let (module, ptx) = source.module();
        let mut functions = Functions::new();
        for kernel in source.kernels() {
            for &dtype in kernel.dtypes() {
                let name = kernel.name(dtype);
                let function = self.device.get_or_load_custom_func(&name, module, ptx)?;
                functions.insert((kernel, dtype), function.into_cuda_function());
            }
        }
        // Another thread may have been faster; its functions are the same.
        let _ = file.set(functions);
        Ok(())
    }

    /// Memory that the allocator keeps for the next pass counts as free.
    fn free_memory(&self) -> Result<Option<usize>> {
        let context = self.stream.context();
        let (free, _) = context.mem_get_info().w()?;
        // SAFETY: the device's own pool, with attributes of this type.
        let kept = unsafe {
            let pool = pool(context.cu_device())?;
            let current = |attribute| -> Result<u64> {
                let mut bytes = 0u64;
                sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast())
                    .result()
                    .w()?;
                Ok(bytes)
            };
            let reserved = current(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
            let used = current(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
            reserved.saturating_sub(used)
        };
        Ok(Some(free + kept as usize))
    }

    fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        Ok(pointer(on_cuda(&storage)?, layout)?.0)
    }

    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
        let function = self.function(kernel, dtype)?;
        // The fields are computed only if a subscriber wants them.
        let _span = tracing::trace_span!("kernel", name = kernel.name(dtype), bytes = bytes(args))
            .entered();
        if launch.shared > SHARED_UNASKED {
            let most =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, launch.shared as i32).w()?;
        }
        let mut storages = Vec::with_capacity(args.len());
        for arg in args {
            if let Arg::In(t) | Arg::Out(t) | Arg::InOut(t) | Arg::Table(t, _) = arg {
                storages.push(t.storage_and_layout());
            }
        }
        let mut tensors = storages.iter();
        let (mut values, mut uses) = (Vec::with_capacity(args.len()), Vec::new());
        for arg in args {
            values.push(match arg {
                Arg::Null => Value::Pointer(0),
                Arg::U32(v) => Value::U32(*v as u32),
                Arg::F32(v) => Value::F32(*v),
                Arg::In(_) | Arg::Out(_) | Arg::InOut(_) | Arg::Table(..) => match tensors.next() {
                    Some((storage, layout)) => {
                        let (address, guard) = pointer(on_cuda(storage)?, layout)?;
                        uses.push(guard);
                        Value::Pointer(address)
                    }
                    None => Value::Pointer(0),
                },
            });
        }
        let mut builder = self.stream.launch_builder(function);
        for value in &values {
            match value {
                Value::Pointer(address) => builder.arg(address),
                Value::U32(v) => builder.arg(v),
                Value::F32(v) => builder.arg(v),
            };
        }
        let config = LaunchConfig {
            grid_dim: (launch.grid.0 as u32, launch.grid.1 as u32, 1),
            block_dim: (launch.threads as u32, 1, 1),
            shared_mem_bytes: launch.shared as u32,
        };
        // SAFETY: the arguments match the kernel in order and type, which tests of this crate check
        // for every kernel. The tensors live until the launch is queued, and memory is freed in
        // stream order.
        unsafe { builder.launch(config) }.w()?;
        // The guards end here, after the launch.
        drop(uses);
        Ok(())
    }

    fn product_f32(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        let ((rows, k), (_, n)) = (x.dims2()?, w.dims2()?);
        let x = x.contiguous()?;
        let transposed = !w.is_contiguous();
        if transposed && !w.t()?.is_contiguous() {
            return Err(Error::Input("expected a weight with contiguous rows".into()));
        }
        let dtype = match x.dtype() {
            DType::F16 => blas::cudaDataType_t::CUDA_R_16F,
            DType::BF16 => blas::cudaDataType_t::CUDA_R_16BF,
            other => return Err(Error::Input(format!("expected f16 or bf16, got {other:?}"))),
        };
        let y = unwritten((rows, n), DType::F32, x.device())?;
        if rows == 0 {
            return Ok(y);
        }
        {
            let (xs, xl) = x.storage_and_layout();
            let (ws, wl) = w.storage_and_layout();
            let (ys, yl) = y.storage_and_layout();
            let (x_at, _x) = pointer(on_cuda(&xs)?, xl)?;
            let (w_at, _w) = pointer(on_cuda(&ws)?, wl)?;
            let (y_at, _y) = pointer(on_cuda(&ys)?, yl)?;
            let handle = self.device.cublas_handle();
            let (one, zero) = (1f32, 0f32);
            let size = |v: usize| {
                i32::try_from(v).map_err(|_| Error::Input(format!("{v} is too large for cuBLAS")))
            };
            let (m, n, k) = (size(n)?, size(rows)?, size(k)?);
            // cuBLAS reads memory in column-major order, as wᵀ or w.
            let (operation, leading) = if transposed {
                (blas::cublasOperation_t::CUBLAS_OP_T, k)
            } else {
                (blas::cublasOperation_t::CUBLAS_OP_N, m)
            };
            // SAFETY: in column-major order yᵀ (n, rows) = wᵀ (n, k) xᵀ; the sizes are those of the
            // tensors, whose rows or columns are adjacent.
            unsafe {
                cublas::result::gemm_ex(
                    *handle.handle(),
                    operation,
                    blas::cublasOperation_t::CUBLAS_OP_N,
                    m,
                    n,
                    k,
                    (&raw const one).cast::<c_void>(),
                    w_at as *const c_void,
                    dtype,
                    leading,
                    x_at as *const c_void,
                    dtype,
                    k,
                    (&raw const zero).cast::<c_void>(),
                    y_at as *mut c_void,
                    blas::cudaDataType_t::CUDA_R_32F,
                    m,
                    blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
                )
            }
            .w()?;
        }
        Ok(y)
    }
}
