//! With the feature `cuda`, compiles `kernels/*.cu` to PTX.
#![allow(clippy::print_stdout)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest architecture with bf16. The driver compiles PTX for the actual GPU at load time, so
/// newer GPUs work too.
const ARCHITECTURE: &str = "compute_80";
/// Name and source of each module. The third value is the width of packed weights, for a module
/// that supports only one width.
const MODULES: [(&str, &str, Option<u32>); 11] = [
    ("elementwise", "elementwise", None),
    ("attention", "attention", None),
    ("attention_mma", "attention_mma", None),
    ("quantized2", "quantized", Some(2)),
    ("quantized3", "quantized", Some(3)),
    ("quantized4", "quantized", Some(4)),
    ("quantized8", "quantized", Some(8)),
    ("quantized_mma2", "quantized_mma", Some(2)),
    ("quantized_mma3", "quantized_mma", Some(3)),
    ("quantized_mma4", "quantized_mma", Some(4)),
    ("quantized_mma8", "quantized_mma", Some(8)),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for header in ["common", "attention", "matrix", "packed"] {
        println!("cargo::rerun-if-changed=kernels/{header}.cuh");
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        fail("cargo did not set OUT_DIR");
    };
    for (name, source, bits) in MODULES {
        let path = format!("kernels/{source}.cu");
        println!("cargo::rerun-if-changed={path}");
        compile(Path::new(&path), bits, &out.join(format!("{name}.ptx")));
    }
}

fn compile(source: &Path, bits: Option<u32>, ptx: &Path) {
    let nvcc = nvcc();
    let result = Command::new(&nvcc)
        .args(["--ptx", "-O3", "-std=c++17", "-arch", ARCHITECTURE, "-o"])
        .arg(ptx)
        .args(bits.map(|bits| format!("-DONLY_BITS={bits}")))
        .arg(source)
        .output();
    match result {
        Ok(output) if output.status.success() => {}
        Ok(output) => fail(&format!(
            "{}: {}{}",
            source.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => fail(&format!(
            "{}: {error}. The feature `cuda` needs NVIDIA's compiler: install a CUDA toolkit and \
             set NVCC, CUDA_HOME or PATH",
            nvcc.display()
        )),
    }
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os)
        .map(|home| Path::new(&home).join("bin/nvcc"))
        .find(|nvcc| nvcc.exists())
        .unwrap_or_else(|| "nvcc".into())
}

fn fail(message: &str) -> ! {
    println!("cargo::error={}", message.replace('\n', " "));
    std::process::exit(1);
}
