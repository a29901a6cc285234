//! Speed and memory of the frozen LLaMA on a CUDA device, each figure next to its limit, measured
//! in the same run. The limit of decoding is the bytes of weights and keys over the bandwidth of a
//! copy. The limit for many tokens is the operations over the rate of a bf16 matrix product.
//!
//! The model has the shape of LLaMA-2-7B and random 4-bit weights of group size 128.
//! `benches/cuda/run.sh` builds and runs this.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod measure;
#[path = "../../crates/glta-llm/tests/support/mod.rs"]
mod support;

use candle_core::{Device, Tensor, Var};
use glta_kernels::Cuda;
use glta_llm::{ForwardOptions, GenerateOptions, Llama, LlamaOptions, Precision};
use measure::{ids, peak_bytes, report, seconds};
use std::time::Instant;
use support::Spec;

/// Measured limits of the device.
struct Limits {
    bandwidth: f64,
    rate: f64,
}

fn load(spec: &Spec, device: &Device) -> Llama {
    load_on(spec, Cuda::new(device, Precision::Bf16).unwrap())
}

fn load_on(spec: &Spec, cuda: Cuda) -> Llama {
    let dir = tempfile::tempdir().unwrap();
    support::write_large(dir.path(), spec);
    let options = LlamaOptions { precision: Precision::Bf16, ..LlamaOptions::default() };
    Llama::load_on(dir.path(), &options, cuda).unwrap()
}

/// Multiplications of the linear layers per token.
fn multiplications(spec: &Spec) -> f64 {
    let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
    let layer = spec.hidden * (2 * queries + 2 * keys) + 3 * spec.hidden * spec.inner;
    (spec.layers * layer) as f64
}

/// Multiplications of attention per token, averaged over a sequence.
fn attention(spec: &Spec, seq: usize) -> f64 {
    (spec.layers * spec.heads * spec.head_dim * seq) as f64
}

/// Bytes of weights, scales and zero points that a decoding step reads, with the output layer.
fn weights(spec: &Spec) -> f64 {
    let packed = multiplications(spec) * (spec.bits as f64 / 8.0 + 3.0 / spec.group as f64);
    packed + (2 * spec.vocab * spec.hidden) as f64
}

/// Bytes of keys and values in bf16.
fn keys(spec: &Spec, tokens: usize) -> f64 {
    (2 * 2 * spec.layers * spec.kv_heads * spec.head_dim * tokens) as f64
}

/// Seconds of a decoding step after prompts of `context` tokens.
fn decoding_step(model: &Llama, spec: &Spec, batch: usize, context: usize) -> f64 {
    const SHORT: usize = 16;
    const LONG: usize = 80;
    let run = |tokens: usize| {
        // The prompts start differently, because shared tokens would be stored once.
        let prompt = |i| ids(spec.vocab, context + i + 1).split_off(i + 1);
        let prompts: Vec<Vec<u32>> = (0..batch).map(prompt).collect();
        let options = GenerateOptions {
            max_new_tokens: tokens,
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        seconds(model.device(), 3, || {
            let texts = model.generate(&prompts, &options);
            assert!(texts.unwrap().iter().all(|text| text.len() == tokens));
        })
    };
    (run(LONG) - run(SHORT)) / (LONG - SHORT) as f64
}

fn decoding(name: &str, model: &Llama, spec: &Spec, limits: &Limits, batch: usize, context: usize) {
    let second = decoding_step(model, spec, batch, context);
    let bytes = weights(spec) + batch as f64 * keys(spec, context);
    let name = format!("{name}, batch {batch}, behind {context} tokens");
    let limit = batch as f64 * limits.bandwidth / bytes;
    report("speed", &name, batch as f64 / second, "tokens/s", Some(limit));
}

fn batch_of(model: &Llama, spec: &Spec, rows: usize, seq: usize) -> Tensor {
    let x = model.embed(&ids(spec.vocab, rows * seq)).unwrap();
    x.reshape((rows, seq, ())).unwrap()
}

fn forward(name: &str, model: &Llama, spec: &Spec, limits: &Limits, rows: usize, seq: usize) {
    let x = batch_of(model, spec, rows, seq);
    let options = ForwardOptions::default();
    let second = seconds(model.device(), 5, || {
        drop(model.hidden_states(&x, &vec![seq; rows], &options).unwrap());
    });
    let tokens = (rows * seq) as f64;
    let operations = 2.0 * tokens * (multiplications(spec) + attention(spec, seq));
    // The weights limit passes with few tokens.
    let least = (operations / limits.rate).max(weights(spec) / limits.bandwidth);
    let name = format!("{name}, {rows} x {seq}");
    report("speed", &name, tokens / second, "tokens/s", Some(tokens / least));
}

fn training(model: &Llama, spec: &Spec, limits: &Limits) {
    let (rows, seq) = (4, 1024);
    let x = Var::from_tensor(&batch_of(model, spec, rows, seq)).unwrap();
    for (recompute, name) in [(true, "with"), (false, "without")] {
        let name = format!("training, {rows} x {seq}, {name} recomputation");
        let options = ForwardOptions { prefix: None, recompute };
        model.device().synchronize().unwrap();
        peak_bytes(model.device(), true);
        let second = seconds(model.device(), 3, || {
            let hidden = model.hidden_states(&x, &vec![seq; rows], &options).unwrap();
            let loss = hidden.sqr().unwrap().mean_all().unwrap();
            drop(loss.backward().unwrap());
        });
        let tokens = (rows * seq) as f64;
        // In the backward pass attention has five products, in the forward pass two.
        let forward = multiplications(spec) + attention(spec, seq);
        let backward = multiplications(spec) + 2.5 * attention(spec, seq);
        let operations = 2.0 * tokens * (forward * if recompute { 2.0 } else { 1.0 } + backward);
        let limit = tokens * limits.rate / operations;
        report("speed", &name, tokens / second, "tokens/s", Some(limit));
        let peak = peak_bytes(model.device(), false);
        report("speed", &format!("{name}: most memory"), peak / 1e9, "GB", None);
    }
}

/// Models with a quarter of the layers: one that decodes without graphs and dequantises its weights
/// in each pass, one whose layers each have their own order of inputs, and one on a device with a
/// stream per thread.
fn others(shared: &Device, limits: &Limits) {
    let short = Spec { layers: 8, ..Spec::llama7b() };
    let ordered = Spec { act_order: true, ..short.clone() };
    let own = Device::new_cuda(0).unwrap();
    let cuda = Cuda::new(shared, Precision::Bf16).unwrap();
    let model = load_on(&short, cuda.graphs(false).keep_dequantised(Some(false)));
    let name = "8 layers, no graph and no kept weights";
    decoding(&format!("{name}, decoding"), &model, &short, limits, 1, 17);
    forward(&format!("{name}, forward"), &model, &short, limits, 8, 512);
    drop(model);
    for (name, spec, device) in [
        ("8 layers", &short, shared),
        ("8 layers, act-order", &ordered, shared),
        ("8 layers, a stream for each thread", &short, &own),
    ] {
        let model = load(spec, device);
        decoding(&format!("{name}, decoding"), &model, spec, limits, 1, 17);
        forward(&format!("{name}, forward"), &model, spec, limits, 8, 512);
    }
}

fn main() {
    let device = measure::device();
    let limits = Limits {
        bandwidth: measure::copy_bandwidth(&device),
        rate: measure::product_rate(&device),
    };
    report("speed", "copy of 1 GiB", limits.bandwidth / 1e9, "GB/s", None);
    report("speed", "cuBLAS, bf16, 8192 x 8192 x 8192", limits.rate / 1e12, "TFLOP/s", None);
    let spec = Spec::llama7b();
    let start = Instant::now();
    let model = load(&spec, &device);
    let loaded = start.elapsed().as_secs_f64();
    report("speed", "writing and loading a checkpoint", loaded, "s", None);
    report("speed", "weights", model.resident_bytes() as f64 / 1e9, "GB", None);
    for batch in [1, 4, 16] {
        decoding("decoding", &model, &spec, &limits, batch, 17);
    }
    for batch in [1, 4] {
        decoding("decoding", &model, &spec, &limits, batch, 4000);
    }
    for seq in [17, 32, 64, 128, 300] {
        forward("forward", &model, &spec, &limits, 1, seq);
    }
    forward("forward", &model, &spec, &limits, 8, 512);
    training(&model, &spec, &limits);
    drop(model);
    others(&device, &limits);
}
