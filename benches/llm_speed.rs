//! Speed of the frozen LLaMA on the CPU, each figure next to its limit in the same run. The limit
//! of decoding is the read bandwidth of all threads divided by the bytes per token. The limit of
//! many rows is the f32 rate of the `gemm` crate on the same shapes, and twice that rate for bf16
//! (one instruction multiplies twice as many numbers).
//!
//! The model has the shape of SmolLM2-135M and random 4-bit weights, so nothing is downloaded. Run
//! it with `cargo bench -p glta-llm --bench llm_speed`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../crates/glta-llm/tests/support/mod.rs"]
mod support;

#[path = "support/plain_product.rs"]
mod plain_product;

use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput};
use glta_llm::{ForwardOptions, GenerateOptions, Llama, LlamaOptions, Precision, SimdLevel};
use plain_product::plain_product;
use rayon::prelude::*;
use std::time::{Duration, Instant};
use support::Spec;

/// Best of several runs, in seconds.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// Bytes per second that all threads together read from a buffer larger than any cache, on huge
/// pages like the weights.
fn read_bandwidth(bytes: usize) -> f64 {
    let mut map = memmap2::MmapMut::map_anon(bytes).unwrap();
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.fill(1);
    let data: &[u64] = bytemuck::cast_slice(&map);
    let chunk = data.len().div_ceil(rayon::current_num_threads());
    let time = best(7, || {
        let sum: u64 = data
            .par_chunks(chunk)
            .map(|part| {
                // Independent sums keep several loads in flight.
                part.chunks_exact(64).fold([0u64; 64], |mut acc, c| {
                    for (a, v) in acc.iter_mut().zip(c) {
                        *a = a.wrapping_add(*v);
                    }
                    acc
                })
            })
            .map(|acc| acc.iter().sum::<u64>())
            .sum();
        std::hint::black_box(sum);
    });
    bytes as f64 / time
}

/// Seconds that the `gemm` crate needs for the products of one layer with `rows` rows.
fn gemm_layer(spec: &Spec, rows: usize) -> f64 {
    let d = spec.head_dim;
    let shapes = [
        (spec.hidden, (spec.heads + 2 * spec.kv_heads) * d),
        (spec.heads * d, spec.hidden),
        (spec.hidden, 2 * spec.inner),
        (spec.inner, spec.hidden),
    ];
    shapes
        .iter()
        .map(|&(k, n)| {
            let a = vec![0.5f32; rows * k];
            let b = vec![0.25f32; n * k];
            let mut c = vec![0f32; rows * n];
            best(5, || plain_product(&a, &b, &mut c, k))
        })
        .sum()
}

/// User and system seconds of this process, which other load affects less than wall time.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Whether the filter of the command line, if given, matches `name`.
fn wanted(name: &str) -> bool {
    std::env::args()
        .skip(1)
        .find(|a| !a.starts_with('-'))
        .is_none_or(|filter| name.contains(&filter))
}

/// Suffix of the name of a case that does not use f32.
fn suffix(precision: Precision) -> &'static str {
    if precision == Precision::F32 { "" } else { ", bf16" }
}

/// Prints one line: the rate, its limit, and the ratio. `beside` seconds of `f` do not count.
fn report(
    name: &str,
    unit: &str,
    count: f64,
    limit: f64,
    runs: usize,
    beside: f64,
    mut f: impl FnMut(),
) {
    let cpu = cpu_seconds();
    let seconds = best(runs, &mut f) - beside;
    let cpu = (cpu_seconds() - cpu) / runs as f64;
    println!(
        "{name:<44} {:>8.0} {unit}/s of {limit:>6.0} = {:>3.0} %   ({:.1} ms, CPU {:.1} ms)",
        count / seconds,
        100.0 * count / seconds / limit,
        1e3 * seconds,
        1e3 * cpu
    );
}

/// Generates `tokens` tokens after prompts of 16.
fn generate(model: &Llama, batch: usize, tokens: usize) {
    let prompts: Vec<Vec<u32>> = (0..batch as u32).map(|i| vec![i + 3; 16]).collect();
    let options =
        GenerateOptions { max_new_tokens: tokens, ignore_eos: true, ..Default::default() };
    model.generate(&prompts, &options).unwrap();
}

/// Seconds of `tokens` decoding steps of one text, without the prompt.
fn decoding(model: &Llama, tokens: usize) -> f64 {
    best(5, || generate(model, 1, tokens + 1)) - best(5, || generate(model, 1, 1))
}

/// Seconds per token of a layer whose weights are in the cache, from models of one and of four
/// layers with a small vocabulary.
fn cached_layer(spec: &Spec, dir: &std::path::Path, precision: Precision) -> f64 {
    support::write_large(dir, &Spec { vocab: 64, layers: 4, ..spec.clone() });
    let [one, four] = [1, 4].map(|layers| {
        let options = LlamaOptions { layers: Some(layers), precision, ..Default::default() };
        Llama::load(dir, &options, &Device::Cpu).unwrap()
    });
    let _ = std::fs::remove_dir_all(dir);
    (decoding(&four, 64) - decoding(&one, 64)) / (3.0 * 64.0)
}

fn decode(
    c: &mut Criterion,
    model: &Llama,
    spec: &Spec,
    dir: &std::path::Path,
    precision: Precision,
) {
    let case = |batch| format!("decode, batch {batch}{}", suffix(precision));
    if ![1, 8, 32].into_iter().any(|batch| wanted(&case(batch))) {
        return;
    }
    let bytes = model.resident_bytes();
    let bandwidth = read_bandwidth(256 << 20);
    let limit = bandwidth / bytes as f64;
    let table = (2 * spec.vocab * spec.hidden) as f64;
    let computed = cached_layer(spec, dir, precision) * spec.layers as f64 + table / bandwidth;
    println!(
        "{:.1} GB/s read by {} threads, {:.1} MB a token: at most {limit:.0} tokens/s for one text",
        bandwidth / 1e9,
        rayon::current_num_threads(),
        bytes as f64 / 1e6,
    );
    println!(
        "layers at their speed from cache and the f16 table at that bandwidth: {:.0} tokens/s",
        1.0 / computed
    );
    let mut group = c.benchmark_group(format!("decode{}", suffix(precision)));
    for batch in [1usize, 8, 32] {
        if !wanted(&case(batch)) {
            continue;
        }
        let tokens = 64;
        // The prompts and the first token of each do not count as decoding.
        let prompt = best(5, || generate(model, batch, 1));
        report(&case(batch), "tok", (tokens * batch) as f64, limit, 5, prompt, || {
            generate(model, batch, tokens + 1)
        });
        group.throughput(Throughput::Elements((tokens * batch) as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| generate(model, batch, tokens))
        });
    }
    group.finish();
}

fn many_rows(c: &mut Criterion, model: &Llama, spec: &Spec, precision: Precision) {
    let layers = model.config().num_hidden_layers;
    for (name, batch, len) in [
        ("prefill 512", 1usize, 512usize),
        ("48 x 40 after 60", 48, 40),
        ("32 x 3 after 60", 32, 3),
    ] {
        let name = &format!("{name}{}", suffix(precision));
        if !wanted(name) {
            continue;
        }
        let rows = batch * len;
        let faster = if precision == Precision::F32 { 1.0 } else { 2.0 };
        let limit = faster * rows as f64 / (gemm_layer(spec, rows) * layers as f64);
        let prefix = model.prefix(&[5; 60]).unwrap();
        let kept = ForwardOptions { prefix: (batch > 1).then_some(&prefix), recompute: false };
        let again = ForwardOptions { recompute: true, ..kept };
        let x: Vec<f32> =
            (0..rows * spec.hidden).map(|i| (i * 7919 % 997) as f32 / 5e3 - 0.1).collect();
        let x = Tensor::from_vec(x, (batch, len, spec.hidden), &Device::Cpu).unwrap();
        let var = Var::from_tensor(&x).unwrap();
        let lengths = vec![len; batch];
        let forward = || drop(model.hidden_states(&x, &lengths, &kept).unwrap());
        let both = |options: &ForwardOptions| {
            let hidden = model.hidden_states(&var, &lengths, options).unwrap();
            let loss = (hidden * &x).unwrap().sum_all().unwrap();
            drop(loss.backward().unwrap());
        };
        report(&format!("{name}: forward"), "tok", rows as f64, limit, 3, 0.0, forward);
        report(&format!("{name}: + backward"), "tok", rows as f64, limit / 2.0, 3, 0.0, || {
            both(&kept)
        });
        report(
            &format!("{name}: + backward, recomputed"),
            "tok",
            rows as f64,
            limit / 3.0,
            3,
            0.0,
            || both(&again),
        );
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function("forward", |b| b.iter(forward));
        group.bench_function("forward and backward", |b| b.iter(|| both(&kept)));
        group.bench_function("forward and backward, recomputed", |b| b.iter(|| both(&again)));
        group.finish();
    }
}

/// `VmHWM` or `VmRSS` of this process in bytes.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

/// Peak memory of a training step with recomputation at 8 x 512 tokens.
fn memory(model: &Llama, spec: &Spec) {
    let (rows, len) = (8, 512);
    let x = Tensor::zeros((rows, len, spec.hidden), candle_core::DType::F32, &Device::Cpu).unwrap();
    let x = Var::from_tensor(&(x + 0.1).unwrap()).unwrap();
    // Resets VmHWM to the current resident size.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let options = ForwardOptions { recompute: true, ..Default::default() };
    let hidden = model.hidden_states(&x, &vec![len; rows], &options).unwrap();
    drop(hidden.sum_all().unwrap().backward().unwrap());
    let width = (spec.heads + 2 * spec.kv_heads) * spec.head_dim + 2 * spec.hidden + 3 * spec.inner;
    let layer = (4 * rows * len * width) as f64;
    let inputs = (4 * rows * len * spec.hidden * (spec.layers + 1)) as f64;
    let weights = model.resident_bytes() as f64;
    println!(
        "memory, 8 x 512 recomputed: peak {:.0} MB; weights {:.0} + one layer {:.0} + inputs {:.0} = {:.0} MB",
        resident("VmHWM") / 1e6,
        weights / 1e6,
        layer / 1e6,
        inputs / 1e6,
        (weights + layer + inputs) / 1e6
    );
}

/// LLaMA-2-7B in shape: time to load from a warm cache, memory, and speed.
fn llama7b(dir: &std::path::Path) {
    let spec = Spec::llama7b();
    support::write_large(dir, &spec);
    for (precision, faster) in
        [(Precision::F32, 1.0), (Precision::F32, 1.0), (Precision::Bf16, 2.0)]
    {
        if precision == Precision::Bf16 && SimdLevel::detect() != SimdLevel::Avx512Bf16 {
            continue;
        }
        let before = resident("VmRSS");
        let start = Instant::now();
        let options = LlamaOptions { precision, ..Default::default() };
        let model = Llama::load(dir, &options, &Device::Cpu).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let packed = std::fs::metadata(dir.join("model.safetensors")).unwrap().len() as f64;
        let grown = resident("VmRSS") - before;
        let suffix = suffix(precision);
        println!(
            "7B{suffix}: loaded in {seconds:.1} s, {:.2} GB resident of {:.2} GB on disk = {:.3}",
            grown / 1e9,
            packed / 1e9,
            grown / packed
        );
        let bytes = model.resident_bytes() as f64;
        let limit = read_bandwidth(256 << 20) / bytes;
        let run = |tokens| {
            let options =
                GenerateOptions { max_new_tokens: tokens, ignore_eos: true, ..Default::default() };
            model.generate(&[vec![5]], &options).unwrap();
        };
        let name = format!("7B: decode, batch 1{suffix}");
        report(&name, "tok", 8.0, limit, 2, best(2, || run(1)), || run(9));
        let limit = faster * 128.0 / (gemm_layer(&spec, 128) * spec.layers as f64);
        let x =
            Tensor::zeros((1, 128, spec.hidden), candle_core::DType::F32, &Device::Cpu).unwrap();
        let x = (x + 0.01).unwrap();
        report(&format!("7B: prefill 128{suffix}"), "tok", 128.0, limit, 1, 0.0, || {
            drop(model.hidden_states(&x, &[128], &ForwardOptions::default()).unwrap());
        });
    }
}

fn main() {
    let spec = Spec::smollm2();
    let dir = std::env::temp_dir().join(format!("glta-llm-bench-{}", std::process::id()));
    // Needs 4 GB of disk and some minutes, so it runs only on request.
    if std::env::args().any(|a| a == "7B") {
        llama7b(&dir);
        let _ = std::fs::remove_dir_all(&dir);
        return;
    }
    support::write_large(&dir, &spec);
    let load = |layers, precision| {
        let options = LlamaOptions { layers, precision, ..Default::default() };
        Llama::load(&dir, &options, &Device::Cpu).unwrap()
    };
    let precisions = match SimdLevel::detect() {
        SimdLevel::Avx512Bf16 => vec![Precision::F32, Precision::Bf16],
        _ => vec![Precision::F32],
    };
    let models: Vec<_> =
        precisions.into_iter().map(|p| (p, load(None, p), load(Some(4), p))).collect();
    let _ = std::fs::remove_dir_all(&dir);
    let mut c = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (precision, whole, part) in &models {
        decode(&mut c, whole, &spec, &dir, *precision);
        many_rows(&mut c, part, &spec, *precision);
    }
    if wanted("memory") {
        memory(&models[0].1, &spec);
    }
    c.final_summary();
}
