//! The driver for NVIDIA GPUs.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::{self, CudaBlas, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg,
    SyncOnDrop, result as driver, sys,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Storage, Tensor};

use super::call::Call;
use super::driver::{Driver, Graph};
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
    capture: Mutex<Option<Capture>>,
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
    Ok(Arc::new(Nvidia { device: device.clone(), stream, files, capture: Mutex::default() }))
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
        at(tensor)
    }

    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
        // The fields are computed only if a subscriber wants them.
        let _span = tracing::trace_span!("kernel", name = kernel.name(dtype), bytes = bytes(args))
            .entered();
        self.allow_shared(kernel, dtype, launch)?;
        self.launch_on(&self.stream, (kernel, dtype, launch), args)
    }

    fn multiply(&self, x: &Tensor, w: &Tensor, y: &Tensor, first: usize) -> Result<()> {
        multiply_with(self.device.cublas_handle().handle(), x, w, y, first)
    }

    fn graph(&self, calls: &[Call]) -> Result<Option<Box<dyn Graph>>> {
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let capture = match &mut *capture {
            Some(capture) => capture,
            none => none.insert(Capture::new(&self.device, &self.stream)?),
        };
        let multiplies = |call: &&Call| matches!(call, Call::Product { .. });
        // Memory that the calls use may have been allocated on the main stream just before.
        self.stream.synchronize().w()?;
        for call in calls {
            if let Call::Launch { kernel, dtype, launch, .. } = call {
                self.allow_shared(*kernel, *dtype, *launch)?;
            }
        }
        // cuBLAS loads kernels at their first use, which a capture must not contain.
        for call in calls.iter().filter(multiplies) {
            self.call_on(capture, call)?;
        }
        capture.stream.synchronize().w()?;
        // Calls of other threads on other streams stay allowed.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        capture.stream.begin_capture(mode).w()?;
        let captured = calls.iter().try_for_each(|call| self.call_on(capture, call));
        // Ends the capture also after an error.
        let graph = capture.stream.end_capture(sys::CUgraphInstantiate_flags(0)).w();
        captured?;
        let graph = graph?.ok_or_else(|| Error::Input("a graph without calls".into()))?;
        let (graph, stream) = (Mutex::new(Handle(graph)), Arc::clone(&self.stream));
        Ok(Some(Box::new(Captured { graph, stream, calls: calls.to_vec() })))
    }
}

/// A stream on which calls are captured, so that no call of another thread gets between them.
struct Capture {
    stream: Arc<CudaStream>,
    blas: CudaBlas,
    /// Memory of cuBLAS, which it would otherwise allocate in each capture. All graphs share it,
    /// because they run on one stream.
    _workspace: Tensor,
}

/// Bytes of memory for cuBLAS: those that NVIDIA recommends for compute capability 9.0.
const WORKSPACE: usize = 32 << 20;

impl Capture {
    fn new(device: &CudaDevice, main: &Arc<CudaStream>) -> Result<Self> {
        let stream = main.context().new_stream().w()?;
        let blas = CudaBlas::new(stream.clone()).w()?;
        let workspace = unwritten(WORKSPACE, DType::U8, &Device::Cuda(device.clone()))?;
        // SAFETY: the memory has this size and lives as long as the handle.
        unsafe {
            blas::cublasSetWorkspace_v2(*blas.handle(), at(&workspace)? as *mut c_void, WORKSPACE)
        }
        .result()
        .w()?;
        Ok(Self { stream, blas, _workspace: workspace })
    }
}

/// A graph; calls of the driver that use it must not overlap.
struct Handle(CudaGraph);

// SAFETY: a graph belongs to a context, not to a thread; a mutex orders its uses.
unsafe impl Send for Handle {}

/// Captured calls, with the tensors that they use.
struct Captured {
    graph: Mutex<Handle>,
    stream: Arc<CudaStream>,
    calls: Vec<Call>,
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Captured").field(&self.calls.len()).finish()
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // The graph may still be running. An error has been or will be reported by other calls.
        let _ = self.stream.synchronize();
    }
}

impl Graph for Captured {
    fn launch(&self, _: &[Tensor]) -> Result<()> {
        let _span = tracing::trace_span!("kernel", name = "graph", bytes = 0).entered();
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: graph and stream exist. The calls use tensors that this graph keeps, and memory
        // whose addresses are in tables; both are used on this stream in order.
        unsafe { driver::graph::launch(graph.0.cu_graph_exec(), self.stream.cu_stream()) }.w()?;
        Ok(())
    }
}

impl Nvidia {
    /// Allows a kernel the shared memory of a launch.
    fn allow_shared(&self, kernel: Kernel, dtype: DType, launch: Launch) -> Result<()> {
        if launch.shared > SHARED_UNASKED {
            let most =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.function(kernel, dtype)?.set_attribute(most, launch.shared as i32).w()?;
        }
        Ok(())
    }

    fn call_on(&self, capture: &Capture, call: &Call) -> Result<()> {
        match call {
            Call::Launch { kernel, dtype, launch, args } => {
                let args: Vec<Arg> = args.iter().map(|kept| kept.arg(&[])).collect();
                self.launch_on(&capture.stream, (*kernel, *dtype, *launch), &args)
            }
            Call::Product { x, w, y, first } => {
                multiply_with(capture.blas.handle(), x, w, y, *first)
            }
        }
    }

    /// Queues a launch whose shared memory is allowed.
    fn launch_on(
        &self,
        stream: &Arc<CudaStream>,
        (kernel, dtype, launch): (Kernel, DType, Launch),
        args: &[Arg],
    ) -> Result<()> {
        let function = self.function(kernel, dtype)?;
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
        let mut builder = stream.launch_builder(function);
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
        // for every kernel. The tensors live until the launch is queued or captured, and memory is
        // freed in stream order.
        unsafe { builder.launch(config) }.w()?;
        // The guards end here, after the launch.
        drop(uses);
        Ok(())
    }
}

/// Address of a tensor's first element.
fn at(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    Ok(pointer(on_cuda(&storage)?, layout)?.0)
}

fn data_type(tensor: &Tensor) -> Result<blas::cudaDataType_t> {
    match tensor.dtype() {
        DType::F32 => Ok(blas::cudaDataType_t::CUDA_R_32F),
        DType::F16 => Ok(blas::cudaDataType_t::CUDA_R_16F),
        DType::BF16 => Ok(blas::cudaDataType_t::CUDA_R_16BF),
        other => Err(Error::Input(format!("expected f32, f16 or bf16, got {other:?}"))),
    }
}

/// [`Driver::multiply`] on the stream of a cuBLAS handle. Sums are f32.
fn multiply_with(
    handle: &blas::cublasHandle_t,
    x: &Tensor,
    w: &Tensor,
    y: &Tensor,
    first: usize,
) -> Result<()> {
    let ((rows, k), (_, n), (_, columns)) = (x.dims2()?, w.dims2()?, y.dims2()?);
    let part = y.narrow(1, first, n)?;
    let (one, zero) = (1f32, 0f32);
    let size = |v: usize| {
        i32::try_from(v).map_err(|_| Error::Input(format!("{v} is too large for cuBLAS")))
    };
    let (m, n, k, columns) = (size(n)?, size(rows)?, size(k)?, size(columns)?);
    // cuBLAS reads memory in column-major order, as wᵀ or w.
    let (operation, leading) = if w.is_contiguous() {
        (blas::cublasOperation_t::CUBLAS_OP_N, m)
    } else {
        (blas::cublasOperation_t::CUBLAS_OP_T, k)
    };
    // SAFETY: in column-major order yᵀ (n, rows) = wᵀ (n, k) xᵀ; the sizes are those of the
    // tensors, whose rows or columns are adjacent. Event tracking is off, so addresses need no
    // guard.
    unsafe {
        cublas::result::gemm_ex(
            *handle,
            operation,
            blas::cublasOperation_t::CUBLAS_OP_N,
            m,
            n,
            k,
            (&raw const one).cast::<c_void>(),
            at(w)? as *const c_void,
            data_type(w)?,
            leading,
            at(x)? as *const c_void,
            data_type(x)?,
            k,
            (&raw const zero).cast::<c_void>(),
            at(&part)? as *mut c_void,
            data_type(y)?,
            columns,
            blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
    }
    .w()?;
    Ok(())
}
