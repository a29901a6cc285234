//! Times, rates and lines of JSON for the benchmarks on a CUDA device.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout)]

use candle_core::cuda_backend::cudarc::driver::sys;
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::time::Instant;

/// Prints a result: `value` next to the `limit` of the hardware, in the same unit.
pub(crate) fn report(part: &str, name: &str, value: f64, unit: &str, limit: Option<f64>) {
    println!("{}", result(part, name, value, unit, limit));
}

/// As [`report`], with the time from which the value was computed.
pub(crate) fn report_timed(
    part: &str,
    name: &str,
    value: f64,
    unit: &str,
    limit: f64,
    seconds: f64,
) {
    let mut line = result(part, name, value, unit, Some(limit));
    line["microseconds"] = json!(rounded(seconds * 1e6));
    println!("{line}");
}

fn result(part: &str, name: &str, value: f64, unit: &str, limit: Option<f64>) -> Value {
    json!({
        "part": part, "name": name, "value": rounded(value), "unit": unit,
        "limit": limit.map(rounded), "fraction": limit.map(|limit| rounded(value / limit)),
    })
}

/// Rounds to four digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Token ids of a text.
pub(crate) fn ids(vocab: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// The first GPU, with a stream that threads share, as in the examples.
pub(crate) fn device() -> Device {
    Device::new_cuda_with_stream(0)
        .unwrap_or_else(|e| panic!("this benchmark needs an NVIDIA GPU and its driver: {e}"))
}

/// Median seconds of `runs` calls, each waited for, after `runs / 2 + 1` warm-up calls.
pub(crate) fn seconds(device: &Device, runs: usize, mut f: impl FnMut()) -> f64 {
    (0..runs / 2 + 1).for_each(|_| f());
    let time = |_| {
        device.synchronize().unwrap();
        let start = Instant::now();
        f();
        device.synchronize().unwrap();
        start.elapsed().as_secs_f64()
    };
    median((0..runs).map(time).collect())
}

/// Bytes per second that a copy of 1 GiB reads and writes.
pub(crate) fn copy_bandwidth(device: &Device) -> f64 {
    let bytes = 1usize << 30;
    let x = Tensor::zeros(bytes / 4, DType::F32, device).unwrap();
    2.0 * bytes as f64 / seconds(device, 11, || drop(x.copy().unwrap()))
}

/// Rows, columns and depth of the product whose rate is the limit of arithmetic.
const PRODUCT: usize = 8192;

pub(crate) fn halves(rows: usize, columns: usize, device: &Device) -> Tensor {
    Tensor::randn(0f32, 1.0, (rows, columns), device).unwrap().to_dtype(DType::BF16).unwrap()
}

/// Operations per second of a large bf16 product by cuBLAS.
pub(crate) fn product_rate(device: &Device) -> f64 {
    let x = halves(PRODUCT, PRODUCT, device);
    2.0 * (PRODUCT as f64).powi(3) / seconds(device, 11, || drop(x.matmul(&x).unwrap()))
}

/// Returns the peak number of bytes of all tensors, or resets it if `reset` is set.
pub(crate) fn peak_bytes(device: &Device, reset: bool) -> f64 {
    let stream = device.as_cuda_device().unwrap().cuda_stream();
    stream.context().bind_to_thread().unwrap();
    let mut bytes = 0u64;
    // SAFETY: the device's own pool, with an attribute of this type.
    unsafe {
        let mut pool = std::ptr::null_mut();
        let device = stream.context().cu_device();
        sys::cuDeviceGetDefaultMemPool(&mut pool, device).result().unwrap();
        let peak = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        match reset {
            true => sys::cuMemPoolSetAttribute(pool, peak, (&raw mut bytes).cast()),
            false => sys::cuMemPoolGetAttribute(pool, peak, (&raw mut bytes).cast()),
        }
        .result()
        .unwrap();
    }
    bytes as f64
}
