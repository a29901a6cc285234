//! Speed of the frozen LLaMA on a CUDA device, each figure beside its limit
//! measured in the same run: bytes of weights over the bandwidth of a copy for
//! decoding, operations over the rate of a bf16 matrix product for many tokens.
//!
//! The model is LLaMA-2-7B in shape with random 4-bit weights of group size 128,
//! made on the spot. `benches/cuda/run.sh` builds and runs this.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../crates/glta-llm/tests/support/mod.rs"]
mod support;

use candle_core::cuda_backend::cudarc::driver::result::mem_get_info;
use candle_core::{DType, Device, Tensor, Var};
use glta_llm::{ForwardOptions, GenerateOptions, Llama, LlamaOptions, Precision};
use std::ops::ControlFlow;
use std::time::Instant;
use support::Spec;

/// Seconds of the fastest of several runs, after one to warm up.
fn best(device: &Device, runs: usize, mut f: impl FnMut()) -> f64 {
    f();
    let time = |_| {
        device.synchronize().unwrap();
        let start = Instant::now();
        f();
        device.synchronize().unwrap();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}

/// Bytes that a copy reads and writes, a second.
fn copy_bandwidth(device: &Device) -> f64 {
    let bytes = 1usize << 30;
    let x = Tensor::zeros(bytes / 4, DType::F32, device).unwrap();
    2.0 * bytes as f64 / best(device, 10, || drop(x.copy().unwrap()))
}

/// Floating-point operations of a bf16 matrix product, a second.
fn product_rate(device: &Device) -> f64 {
    let n = 8192;
    let x = Tensor::randn(0f32, 1.0, (n, n), device).unwrap().to_dtype(DType::BF16).unwrap();
    2.0 * (n as f64).powi(3) / best(device, 5, || drop(x.matmul(&x).unwrap()))
}

fn used_bytes() -> f64 {
    let (free, total) = mem_get_info().unwrap();
    (total - free) as f64
}

fn ids(spec: &Spec, len: usize) -> Vec<u32> {
    (0..len).map(|i| (i * 7919 % spec.vocab) as u32).collect()
}

/// Multiplications of the linear layers for a token.
fn multiplications(spec: &Spec) -> f64 {
    let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let layer = spec.hidden * (2 * queries + 2 * keys) + 3 * spec.hidden * spec.inner;
    (spec.layers * layer) as f64
}

/// And of attention, on average over a sequence.
fn attention(spec: &Spec, seq: usize) -> f64 {
    (spec.layers * spec.heads * spec.head_dim * seq) as f64
}

fn decoding(model: &Llama, spec: &Spec, bandwidth: f64) {
    let run = |batch: usize, tokens: usize| {
        let prompts: Vec<Vec<u32>> = (0..batch).map(|i| ids(spec, 17 + i)).collect();
        let options = GenerateOptions {
            max_new_tokens: tokens,
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        best(model.device(), 3, || {
            let texts = model.generate(&prompts, &options, &mut |_| ControlFlow::Continue(()));
            assert!(texts.unwrap().iter().all(|text| text.len() == tokens));
        })
    };
    // The embedding table is not read.
    let table = 2 * spec.vocab * spec.hidden;
    let bytes = (model.resident_bytes() - table) as f64;
    for batch in [1, 4, 16] {
        let second = (run(batch, 96) - run(batch, 32)) / 64.0;
        println!(
            "decode, batch {batch}: {:.0} tokens/s; limit {:.0} ({:.2} GB of weights a step); {:.0} %",
            batch as f64 / second,
            batch as f64 * bandwidth / bytes,
            bytes / 1e9,
            100.0 * bytes / bandwidth / second,
        );
    }
}

fn prefill(model: &Llama, spec: &Spec, rate: f64) {
    let (rows, seq) = (8, 512);
    let x = model.embed(&ids(spec, rows * seq)).unwrap().reshape((rows, seq, ())).unwrap();
    let options = ForwardOptions::default();
    let second = best(model.device(), 3, || {
        drop(model.hidden_states(&x, &vec![seq; rows], &options).unwrap());
    });
    let tokens = (rows * seq) as f64;
    let operations = 2.0 * tokens * (multiplications(spec) + attention(spec, seq));
    println!(
        "prefill, {rows} x {seq}: {:.0} tokens/s; limit {:.0}; {:.0} %",
        tokens / second,
        tokens * rate / operations,
        100.0 * operations / rate / second,
    );
}

fn training(model: &Llama, spec: &Spec, rate: f64) {
    let (rows, seq) = (4, 1024);
    let x = model.embed(&ids(spec, rows * seq)).unwrap().reshape((rows, seq, ())).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    // Less memory first: what the pool once had it keeps.
    for recompute in [true, false] {
        let options = ForwardOptions { prefix: None, recompute };
        let second = best(model.device(), 3, || {
            let hidden = model.hidden_states(&x, &vec![seq; rows], &options).unwrap();
            let loss = hidden.sqr().unwrap().mean_all().unwrap();
            drop(loss.backward().unwrap());
        });
        let tokens = (rows * seq) as f64;
        // Of attention the backward pass has five products for the forward's two.
        let forward = multiplications(spec) + attention(spec, seq);
        let backward = multiplications(spec) + 2.5 * attention(spec, seq);
        let operations = 2.0 * tokens * (forward * if recompute { 2.0 } else { 1.0 } + backward);
        println!(
            "training, {rows} x {seq}, {} recomputation: {:.0} tokens/s; limit {:.0}; {:.0} %; {:.1} GB",
            if recompute { "with" } else { "without" },
            tokens / second,
            tokens * rate / operations,
            100.0 * operations / rate / second,
            used_bytes() / 1e9,
        );
    }
}

fn main() {
    let device = Device::new_cuda(0).unwrap();
    let bandwidth = copy_bandwidth(&device);
    let rate = product_rate(&device);
    println!("copy: {:.0} GB/s; bf16 matrix product: {:.0} TFLOP/s", bandwidth / 1e9, rate / 1e12);
    // The probes' memory goes back; the model's allocator keeps its own.
    let spec = Spec::llama7b();
    let dir = tempfile::tempdir().unwrap();
    support::write_large(dir.path(), &spec);
    let start = Instant::now();
    let options = LlamaOptions { precision: Precision::Bf16, ..LlamaOptions::default() };
    let model = Llama::load(dir.path(), &options, &device).unwrap();
    println!(
        "loaded in {:.0} s: {:.2} GB of weights, {:.1} GB of the device in use",
        start.elapsed().as_secs_f64(),
        model.resident_bytes() as f64 / 1e9,
        used_bytes() / 1e9,
    );
    decoding(&model, &spec, bandwidth);
    prefill(&model, &spec, rate);
    training(&model, &spec, rate);
}
