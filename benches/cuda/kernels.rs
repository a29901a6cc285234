//! Speed of every kernel on a CUDA device, next to a copy and cuBLAS.
//!
//! Models with the shape of LLaMA-2-7B and fewer layers run whole passes. The library opens a
//! `tracing` span around each launch; this program's subscriber records a CUDA event at its start
//! and end. A pass is queued after products that keep the GPU busy, so that no launch waits for the
//! host. A time is the median of all launches of the same kernel and size, and includes about a
//! microsecond for the events. Each layer has its own weights, which together exceed the cache.
//!
//! `benches/cuda/run.sh` builds and runs this.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod measure;
#[path = "../../crates/glta-llm/tests/support/mod.rs"]
mod support;

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, sys};
use candle_core::{DType, Device, Tensor, Var};
use glta_kernels::Cuda;
use glta_llm::{ForwardOptions, GenerateOptions, KvCache, Llama, LlamaOptions, Precision};
use measure::{halves, ids, median, report, report_timed};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use support::Spec;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The fields of a launch's span.
#[derive(Clone, Default)]
struct Launch {
    kernel: String,
    bytes: u64,
}

impl Visit for Launch {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "bytes" {
            self.bytes = value;
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.kernel = value.into();
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// A launch between two events of the stream.
#[derive(Default)]
struct Timed {
    launch: Launch,
    start: Option<CudaEvent>,
    end: Option<CudaEvent>,
}

impl Timed {
    /// Waits until the launch has ended, and returns its time.
    fn seconds(&self) -> f64 {
        let (start, end) = (self.start.as_ref().unwrap(), self.end.as_ref().unwrap());
        f64::from(start.elapsed_ms(end).unwrap()) / 1e3
    }
}

/// Records a CUDA event at the start and end of each launch span.
#[derive(Clone)]
struct Recorder {
    stream: Arc<CudaStream>,
    launches: Arc<Mutex<Vec<Timed>>>,
    spans: Arc<AtomicU64>,
    /// Queued before every launch of a pass that waits for the device.
    ahead: Option<Tensor>,
}

impl Recorder {
    fn new(device: &Device) -> Self {
        Self {
            stream: device.as_cuda_device().unwrap().cuda_stream(),
            launches: Arc::default(),
            spans: Arc::default(),
            ahead: None,
        }
    }

    fn mark(&self) -> Option<CudaEvent> {
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        Some(self.stream.record_event(Some(flags)).unwrap())
    }

    /// Seconds of every launch since the last call.
    fn take(&self) -> Vec<(Launch, f64)> {
        let launches = std::mem::take(&mut *self.launches.lock().unwrap());
        launches.into_iter().map(|timed| (timed.launch.clone(), timed.seconds())).collect()
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "kernel"
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut launch = Launch::default();
        attributes.record(&mut launch);
        self.launches.lock().unwrap().push(Timed { launch, ..Timed::default() });
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    // Launches follow each other on one thread, so the span is the last one.
    fn enter(&self, _: &Id) {
        for busy in self.ahead.iter().flat_map(|busy| [busy; 4]) {
            drop(busy.matmul(busy).unwrap());
        }
        self.launches.lock().unwrap().last_mut().unwrap().start = self.mark();
    }
    fn exit(&self, _: &Id) {
        self.launches.lock().unwrap().last_mut().unwrap().end = self.mark();
    }
}

struct Bench {
    device: Device,
    recorder: Recorder,
    /// Keeps the GPU busy while a pass is queued.
    busy: Tensor,
    bandwidth: f64,
    rate: f64,
}

/// Launches of a kernel with the same number of bytes, in order of the first one.
struct Group {
    kernel: String,
    bytes: f64,
    seconds: f64,
}

impl Bench {
    fn new() -> Self {
        let device = measure::device();
        let bandwidth = measure::copy_bandwidth(&device);
        let rate = measure::product_rate(&device);
        report("kernels", "copy of 1 GiB", bandwidth / 1e9, "GB/s", None);
        report("kernels", "cuBLAS, bf16, 8192 x 8192 x 8192", rate / 1e12, "TFLOP/s", None);
        let (recorder, busy) = (Recorder::new(&device), halves(4096, 4096, &device));
        Self { device, recorder, busy, bandwidth, rate }
    }

    /// Seconds of queued work that keep the GPU busy before a pass.
    const AHEAD: f64 = 0.02;

    fn keep_busy(&self) {
        let one = 2.0 * 4096f64.powi(3) / self.rate;
        for _ in 0..(Self::AHEAD / one).ceil() as usize {
            drop(self.busy.matmul(&self.busy).unwrap());
        }
    }

    /// Measures the kernels of `pass`, which must not wait for the device.
    fn profile(&self, runs: usize, pass: impl FnMut()) -> Vec<Group> {
        self.profile_with(&self.recorder, runs, pass)
    }

    fn profile_with(&self, recorder: &Recorder, runs: usize, mut pass: impl FnMut()) -> Vec<Group> {
        let mut groups: Vec<(Launch, Vec<f64>)> = Vec::new();
        for run in 0..runs + 1 {
            self.device.synchronize().unwrap();
            self.keep_busy();
            tracing::subscriber::with_default(recorder.clone(), &mut pass);
            self.device.synchronize().unwrap();
            for (launch, seconds) in recorder.take() {
                // The first run loads the kernels.
                if run == 0 {
                    continue;
                }
                let same = |(l, _): &&mut (Launch, Vec<f64>)| {
                    l.kernel == launch.kernel && l.bytes == launch.bytes
                };
                match groups.iter_mut().find(same) {
                    Some((_, times)) => times.push(seconds),
                    None => groups.push((launch, vec![seconds])),
                }
            }
        }
        let group = |(launch, times): (Launch, Vec<f64>)| Group {
            kernel: launch.kernel,
            bytes: launch.bytes as f64,
            seconds: median(times),
        };
        groups.into_iter().map(group).collect()
    }

    fn bytes_per_second(&self, name: &str, bytes: f64, seconds: f64) {
        let (rate, limit) = (bytes / seconds / 1e9, self.bandwidth / 1e9);
        report_timed("kernels", name, rate, "GB/s", limit, seconds);
    }

    fn operations_per_second(&self, name: &str, operations: f64, seconds: f64) {
        let (rate, limit) = (operations / seconds / 1e12, self.rate / 1e12);
        report_timed("kernels", name, rate, "TFLOP/s", limit, seconds);
    }

    /// A model of bf16; products with one row run on the tensor cores or the f32 units.
    fn load(&self, spec: &Spec, one_row_in_f32: bool) -> Llama {
        let dir = tempfile::tempdir().unwrap();
        support::write_large(dir.path(), spec);
        let options = LlamaOptions { precision: Precision::Bf16, ..LlamaOptions::default() };
        let cuda = Cuda::new(&self.device, Precision::Bf16).unwrap();
        // Every kernel is launched, and in every pass.
        let cuda = cuda.one_row_in_f32(one_row_in_f32).graphs(false).keep_dequantised(Some(false));
        Llama::load_on(dir.path(), &options, cuda).unwrap()
    }

    /// Products with packed weights, next to cuBLAS with a bf16 weight of the same shape.
    fn products(&self, spec: &Spec, model: &Llama, rows: &[usize]) {
        for &rows in rows {
            let groups = self.profile(5, || decode(model, spec, &mut caches(model, rows)));
            let products: Vec<&Group> =
                groups.iter().filter(|g| g.kernel.starts_with("product")).collect();
            assert_eq!(products.len(), LINEARS.len(), "a layer has four products");
            for (group, linear) in products.iter().zip(LINEARS) {
                let (n, k) = linear.shape(spec);
                let name = format!("{}, {rows} rows, {}", group.kernel, linear.name);
                // Words, scales and zero points; sums of parts of the inputs stay in the cache.
                let bytes = (n * k * spec.bits / 8 + n * k / spec.group * 3) as f64;
                self.bytes_per_second(&name, bytes, group.seconds);
                if spec.bits == 4 {
                    let operations = 2.0 * (rows * n * k) as f64;
                    self.operations_per_second(&name, operations, group.seconds);
                    let name = format!("cuBLAS, bf16, {rows} rows, {}", linear.name);
                    let seconds = self.cublas(rows, n, k);
                    self.bytes_per_second(&name, 2.0 * (n * k) as f64, seconds);
                }
            }
        }
    }

    /// Seconds of `(rows, k) x (k, n)`, with several weights that together exceed the cache.
    fn cublas(&self, rows: usize, n: usize, k: usize) -> f64 {
        let weights: Vec<Tensor> = (0..6).map(|_| halves(n, k, &self.device)).collect();
        let x = halves(rows, k, &self.device);
        let mut times = Vec::new();
        for run in 0..4 {
            self.device.synchronize().unwrap();
            self.keep_busy();
            let mut events = Vec::new();
            for w in &weights {
                let start = self.recorder.mark();
                drop(x.matmul(&w.t().unwrap()).unwrap());
                events.push(Timed { start, end: self.recorder.mark(), ..Timed::default() });
            }
            self.device.synchronize().unwrap();
            if run > 0 {
                times.extend(events.iter().map(Timed::seconds));
            }
        }
        median(times)
    }

    /// The kernels of a training step: dequantisation, attention, and elementwise kernels.
    fn training(&self, spec: &Spec, model: &Llama, (rows, seq): (usize, usize)) {
        let x = model.embed(&ids(spec.vocab, rows * seq)).unwrap();
        let x = Var::from_tensor(&x.reshape((rows, seq, ())).unwrap()).unwrap();
        let options = ForwardOptions { prefix: None, recompute: false };
        let groups = self.profile(3, || {
            let hidden = model.hidden_states(&x, &vec![seq; rows], &options).unwrap();
            drop(hidden.sqr().unwrap().mean_all().unwrap().backward().unwrap());
        });
        // The lower half of a matrix of scores, in multiplications and additions.
        let scores = (rows * spec.heads * seq * seq * spec.head_dim) as f64;
        let mut dequantised = LINEARS.iter();
        for group in groups {
            let name = format!("{}, {rows} x {seq}", group.kernel);
            // Products of a query with a key, and of a weight with a value.
            let products = match group.kernel.as_str() {
                "attention_mma128_bf16" => Some(2.0),
                "attention_mma_queries128_bf16" => Some(3.0),
                "attention_mma_keys128_bf16" => Some(4.0),
                _ => None,
            };
            match products {
                Some(products) => {
                    self.operations_per_second(&name, products * scores, group.seconds);
                }
                None if group.kernel.starts_with("dequantise") => {
                    let linear = dequantised.next().map_or("", |linear| linear.name);
                    let name = format!("{}, {linear}", group.kernel);
                    self.bytes_per_second(&name, group.bytes, group.seconds);
                }
                None => self.bytes_per_second(&name, group.bytes, group.seconds),
            }
        }
    }

    fn dequantising(&self, model: &Llama, spec: &Spec) {
        // More rows than products with packed weights support.
        let x = model.embed(&ids(spec.vocab, 128)).unwrap().unsqueeze(0).unwrap();
        let groups = self.profile(3, || {
            drop(model.hidden_states(&x, &[128], &ForwardOptions::default()).unwrap());
        });
        let groups = groups.iter().filter(|g| g.kernel.starts_with("dequantise"));
        for (group, linear) in groups.zip(LINEARS) {
            let name = format!("{}, {}", group.kernel, linear.name);
            self.bytes_per_second(&name, group.bytes, group.seconds);
        }
    }

    /// The choice of tokens, after which the host waits.
    fn choosing(&self, spec: &Spec, model: &Llama, batch: usize) {
        let prompts: Vec<Vec<u32>> = (1..=batch).map(|n| ids(spec.vocab, 9 + n)).collect();
        let options =
            GenerateOptions { max_new_tokens: 4, ignore_eos: true, ..GenerateOptions::default() };
        let recorder = Recorder { ahead: Some(self.busy.clone()), ..self.recorder.clone() };
        let groups =
            self.profile_with(&recorder, 2, || drop(model.generate(&prompts, &options).unwrap()));
        for group in groups.iter().filter(|g| g.kernel == "next_tokens_f32") {
            let name = format!("{}, {batch} texts", group.kernel);
            self.bytes_per_second(&name, group.bytes, group.seconds);
        }
    }

    /// Sums of rows: the gradient of a prompt's soft tokens, each of which occurs four times.
    fn index_add(&self, model: &Llama, spec: &Spec, rows: usize) {
        let soft = Tensor::zeros((rows / 4, spec.hidden), DType::F32, &self.device).unwrap();
        let soft = Var::from_tensor(&soft).unwrap();
        let index: Vec<u32> = (0..rows as u32).map(|row| row % (rows as u32 / 4)).collect();
        let groups = self.profile(3, || {
            let gathered = model.rows(&soft, &index).unwrap();
            drop(gathered.sum_all().unwrap().backward().unwrap());
        });
        for group in groups {
            self.bytes_per_second(
                &format!("{}, {rows} rows", group.kernel),
                group.bytes,
                group.seconds,
            );
        }
    }

    /// Attention of one token over the keys of a long text.
    fn decoding(&self, spec: &Spec, model: &Llama, batch: usize, context: usize) {
        let mut cache = model.kv_cache();
        let text = model.embed(&ids(spec.vocab, context)).unwrap();
        model.extend(&text, &mut cache).unwrap();
        // Separate copies, which the first token creates.
        let mut caches = vec![cache; batch];
        decode(model, spec, &mut caches);
        let groups = self.profile(5, || {
            caches.iter_mut().for_each(|cache| cache.truncate(context));
            decode(model, spec, &mut caches);
        });
        let keys = 2 * 2 * batch * (context + 1) * spec.kv_heads * spec.head_dim;
        for group in groups.iter().filter(|g| g.kernel == "attention_decode_bf16") {
            let name = format!("{}, batch {batch}, {context} tokens", group.kernel);
            self.bytes_per_second(&name, keys as f64, group.seconds);
        }
    }
}

/// A fused layer of a block.
#[derive(Clone, Copy)]
struct Fused {
    name: &'static str,
    shape: fn(&Spec) -> (usize, usize),
}

impl Fused {
    /// Outputs and inputs.
    fn shape(self, spec: &Spec) -> (usize, usize) {
        (self.shape)(spec)
    }
}

/// In the order in which a block runs them.
const LINEARS: [Fused; 4] = [
    Fused { name: "q k v", shape: |s| ((s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden) },
    Fused { name: "o", shape: |s| (s.hidden, s.heads * s.head_dim) },
    Fused { name: "gate up", shape: |s| (2 * s.inner, s.hidden) },
    Fused { name: "down", shape: |s| (s.hidden, s.inner) },
];

fn caches(model: &Llama, batch: usize) -> Vec<KvCache> {
    (0..batch).map(|_| model.kv_cache()).collect()
}

/// Decodes one token with each cache.
fn decode(model: &Llama, spec: &Spec, caches: &mut [KvCache]) {
    let batch = caches.len();
    let x = model.embed(&ids(spec.vocab, batch)).unwrap().unsqueeze(1).unwrap();
    drop(model.extend_batch(&x, &vec![1; batch], None, caches).unwrap());
}

fn main() {
    let bench = Bench::new();
    let spec = Spec { layers: 8, ..Spec::llama7b() };
    let model = bench.load(&spec, false);
    bench.products(&spec, &model, &[1, 2, 4, 8, 16, 32, 64]);
    bench.training(&spec, &model, (4, 1024));
    for batch in [1, 4, 16] {
        bench.decoding(&spec, &model, batch, 4000);
    }
    for batch in [1, 16] {
        bench.choosing(&spec, &model, batch);
    }
    bench.index_add(&model, &spec, 4096);
    drop(model);
    let model = bench.load(&spec, true);
    bench.products(&spec, &model, &[1]);
    drop(model);
    for bits in [2, 3, 8] {
        let spec = Spec { layers: 3, bits, ..Spec::llama7b() };
        let model = bench.load(&spec, false);
        bench.products(&spec, &model, &[1, 16, 64]);
        bench.dequantising(&model, &spec);
    }
}
