//! The driver of this crate's tests. Tensors are on the CPU, and the same kernel sources are
//! compiled as C++ (`kernels/host`). Each launch is checked for accesses outside its buffers, for
//! reads of uninitialised values, for results that overlap other arguments or depend on the order
//! of threads and blocks, for atomic operations without a fence, and for the file of the kernel.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use candle_core::{CpuStorage, DType, Storage, Tensor};

use super::driver::Driver;
use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch};
use crate::error::{Error, Result};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}
const RTLD_NOW: c_int = 2;

#[repr(C)]
struct Argument {
    kind: u64,
    value: u64,
    bytes: u64,
}

#[repr(C)]
struct Region {
    address: u64,
    bytes: u64,
}

type EmulateLaunch = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const u32,
    u32,
    u64,
    *const Argument,
    u64,
    *const Region,
    u64,
) -> *const c_char;

const FILES: [&str; 13] = [
    "common.cuh",
    "attention.cuh",
    "matrix.cuh",
    "packed.cuh",
    "host/emulate.h",
    "host/matrix.h",
    "host/emulate.cpp",
    "host/faults.cpp",
    "elementwise.cu",
    "quantized.cu",
    "quantized_mma.cu",
    "attention.cu",
    "attention_mma.cu",
];

/// The kernels as a library, or the reason why they did not compile.
fn library() -> &'static std::result::Result<EmulateLaunch, String> {
    static LIBRARY: OnceLock<std::result::Result<EmulateLaunch, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = compiled()?;
        let path = CString::new(path.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: the library is part of this crate, and the function has this signature.
        unsafe {
            let library = dlopen(path.as_ptr(), RTLD_NOW);
            if library.is_null() {
                return Err(format!("{path:?} does not load"));
            }
            let function = dlsym(library, c"emulate_launch".as_ptr());
            if function.is_null() {
                return Err("emulate_launch is missing".into());
            }
            Ok(std::mem::transmute::<*mut c_void, EmulateLaunch>(function))
        }
    })
}

/// Compiles the kernels once for all test processes of a build.
fn compiled() -> std::result::Result<PathBuf, String> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut hasher = DefaultHasher::new();
    (&compiler, fused_instructions()).hash(&mut hasher);
    for file in FILES {
        std::fs::read(kernels.join(file)).map_err(|e| format!("{file}: {e}"))?.hash(&mut hasher);
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let library = program.with_file_name(format!("kernels-{:016x}.so", hasher.finish()));
    let lock = std::fs::File::create(library.with_extension("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if library.exists() {
        return Ok(library);
    }
    let part = library.with_extension("part");
    let sources = FILES.iter().filter(|f| f.ends_with(".cu") || f.ends_with(".cpp"));
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas"])
        // Undefined behaviour stops the test.
        .args(["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-I."])
        // Multiply-adds only where the kernels request them, as an instruction if there is one.
        .arg("-ffp-contract=off")
        .args(fused_instructions().then_some("-mfma"))
        .arg("-o")
        .arg(&part)
        .args(["-x", "c++"])
        .args(sources)
        .current_dir(&kernels)
        .output()
        .map_err(|e| format!("{compiler}: {e}; install a C++ compiler or set CXX"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    std::fs::rename(&part, &library).map_err(|e| e.to_string())?;
    Ok(library)
}

fn fused_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The kernels on the host.
#[derive(Debug)]
pub(super) struct Emulator;

fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::Input("expected a tensor on the CPU".into()));
    };
    let (start, size) = match storage {
        CpuStorage::U8(v) => (v.as_ptr() as u64, 1),
        CpuStorage::U32(v) => (v.as_ptr() as u64, 4),
        CpuStorage::I64(v) => (v.as_ptr() as u64, 8),
        CpuStorage::BF16(v) => (v.as_ptr() as u64, 2),
        CpuStorage::F16(v) => (v.as_ptr() as u64, 2),
        CpuStorage::F32(v) => (v.as_ptr() as u64, 4),
        _ => {
            return Err(Error::Input("expected a tensor of f32, f16, bf16, u8, u32 or i64".into()));
        }
    };
    Ok(start + (layout.start_offset() * size) as u64)
}

impl Driver for Emulator {
    fn load(&self, _: Source) -> Result<()> {
        Ok(())
    }

    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
        let name = kernel.name(dtype);
        let function = library().as_ref().map_err(|e| Error::Input(e.clone()))?;
        let (mut arguments, mut regions) = (Vec::new(), Vec::new());
        let bytes = |t: &Tensor| (t.elem_count() * t.dtype().size_in_bytes()) as u64;
        for arg in args {
            let buffer = |kind, tensor: &Tensor| -> Result<Argument> {
                Ok(Argument { kind, value: address(tensor)?, bytes: bytes(tensor) })
            };
            arguments.push(match arg {
                Arg::In(t) => buffer(1, t)?,
                Arg::Out(t) => buffer(2, t)?,
                Arg::InOut(t) => buffer(3, t)?,
                Arg::Table(t, tensors) => {
                    for tensor in *tensors {
                        regions.push(Region { address: address(tensor)?, bytes: bytes(tensor) });
                    }
                    buffer(4, t)?
                }
                Arg::Null => Argument { kind: 0, value: 0, bytes: 0 },
                Arg::U32(v) => Argument { kind: 0, value: *v as u64, bytes: 0 },
                Arg::F32(v) => Argument { kind: 0, value: u64::from(v.to_bits()), bytes: 0 },
            });
        }
        let grid = [launch.grid.0 as u32, launch.grid.1 as u32];
        let c_string = |s: &str| CString::new(s).map_err(|e| Error::Input(e.to_string()));
        let (c_name, file) = (c_string(&name)?, c_string(kernel.source().file())?);
        // SAFETY: the arguments are tensors of the sizes given, alive for the call.
        let problem = unsafe {
            function(
                c_name.as_ptr(),
                file.as_ptr(),
                grid.as_ptr(),
                launch.threads as u32,
                launch.shared as u64,
                arguments.as_ptr(),
                arguments.len() as u64,
                regions.as_ptr(),
                regions.len() as u64,
            )
        };
        if problem.is_null() {
            return Ok(());
        }
        // SAFETY: a C string with static lifetime.
        let problem = unsafe { CStr::from_ptr(problem) }.to_string_lossy();
        Err(Error::Input(format!("{name}{launch:?}: {problem}")))
    }

    fn multiply(&self, x: &Tensor, w: &Tensor, y: &Tensor, first: usize) -> Result<()> {
        let product = match y.dtype() {
            DType::F32 => x.to_dtype(DType::F32)?.matmul(&w.to_dtype(DType::F32)?)?,
            _ => x.matmul(w)?,
        };
        Ok(y.slice_set(&product, 1, first)?)
    }

    fn address(&self, tensor: &Tensor) -> Result<u64> {
        address(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn problem(args: &[Arg], launch: Launch) -> String {
        let result = Emulator.queue(Kernel::GatherColumns, DType::F32, launch, args);
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn launches_are_checked() {
        let x = Tensor::zeros((3, 8), DType::F32, &Device::Cpu).unwrap();
        let index = Tensor::zeros(8, DType::U32, &Device::Cpu).unwrap();
        let other = x.copy().unwrap();
        let launch = Launch::rows(3, 32);
        let args = |y| [Arg::In(&x), Arg::In(&index), Arg::Out(y), Arg::U32(8), Arg::U32(8)];
        assert_eq!(problem(&args(&other), launch), "");
        // A result that is also an argument, or a part of one.
        assert!(problem(&args(&x), launch).contains("overlaps"));
        let part = x.narrow(0, 1, 1).unwrap();
        assert!(problem(&args(&part), Launch::rows(1, 32)).contains("overlaps"));
        assert!(problem(&args(&other)[..4], launch).contains("number of arguments"));
        assert!(problem(&args(&other), Launch { threads: 48, ..launch }).contains("block"));
    }

    /// The problem of a kernel of `host/faults.cpp`, with four blocks.
    fn fault(name: &CStr) -> String {
        let parts = Tensor::zeros(4 * 64, DType::F32, &Device::Cpu).unwrap();
        let counter = Tensor::zeros(1, DType::U32, &Device::Cpu).unwrap();
        let buffer = |kind, tensor: &Tensor| Argument {
            kind,
            value: address(tensor).unwrap(),
            bytes: 4 * tensor.elem_count() as u64,
        };
        let args = [buffer(2, &parts), buffer(3, &counter)];
        let (file, grid) = (c"host/faults.cpp".as_ptr(), [4, 1]);
        let function = library().as_ref().unwrap();
        // SAFETY: the arguments are tensors of these sizes, alive for the call.
        let problem = unsafe {
            let none = std::ptr::null();
            function(name.as_ptr(), file, grid.as_ptr(), 64, 16, args.as_ptr(), 2, none, 0)
        };
        if problem.is_null() {
            return String::new();
        }
        // SAFETY: a C string with static lifetime.
        unsafe { CStr::from_ptr(problem) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn errors_between_blocks_are_found() {
        assert_eq!(fault(c"fault_none"), "");
        for name in [c"fault_no_fence", c"fault_one_fence"] {
            assert!(fault(name).contains("has not fenced its writes"), "{name:?}");
        }
        assert!(fault(c"fault_shared_sum").contains("depends on the order"));
    }

    #[test]
    fn a_kernel_in_another_file_is_not_found() {
        let function = library().as_ref().unwrap();
        let launch = |file: &CStr| {
            let (grid, none) = ([1, 1], std::ptr::null());
            // SAFETY: the launch fails before an argument is read.
            let problem = unsafe {
                let name = c"add_f32".as_ptr();
                function(name, file.as_ptr(), grid.as_ptr(), 32, 0, none, 0, std::ptr::null(), 0)
            };
            // SAFETY: a C string with static lifetime.
            unsafe { CStr::from_ptr(problem) }.to_str().unwrap()
        };
        assert_eq!(launch(c"attention.cu"), "the kernel is in another file");
        assert_eq!(launch(c"elementwise.cu"), "another number of arguments");
    }
}
