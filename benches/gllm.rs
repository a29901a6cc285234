//! The head at the size of large catalogues: loss with gradients, and the best 20 items, next to
//! the plain f32 product `Z Wᵀ` in the same run.
//!
//! A loss with its gradients computes this product three times (logits forward and again backward,
//! gradient of the hidden states), and a fourth time for free weights; ranking computes it once.
//! Peak memory is the increase during the call, next to the size of all logits. Run `cargo bench -p
//! glta-gllm --bench gllm`. `-- tied` or `-- free` selects one head (the free one needs 7 GB), `--
//! --test` skips criterion's repetitions.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/plain_product.rs"]
mod plain_product;

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};
use criterion::Criterion;
use glta_gllm::{Decoder, GllmHead};
use glta_projector::normal_var;
use plain_product::plain_product;

const HIDDEN: usize = 4096;
/// Width of the item nodes of the tied head.
const NODES: usize = 64;
const TARGETS: usize = 20;

/// Best of three runs, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..3).map(run).fold(f64::INFINITY, f64::min)
}

/// `VmHWM` or `VmRSS` of this process in bytes.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// Bytes by which `f` increases peak resident memory.
fn peak(f: impl FnOnce()) -> f64 {
    // Resets VmHWM to the current resident size.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = resident("VmRSS");
    f();
    resident("VmHWM") - before
}

/// Seconds of `Z Wᵀ` with a width of `inner`, on all threads and in blocks of items, so that the
/// output is not stored.
fn product(rows: usize, items: usize, inner: usize) -> f64 {
    let items_of = items.min((256 << 20) / inner);
    let z = vec![0.5f32; rows * inner];
    let w = vec![0.25f32; items_of * inner];
    let mut out = vec![0f32; rows * items_of];
    let seconds = best(|| plain_product(&z, &w, &mut out, inner));
    seconds * items as f64 / items_of as f64
}

fn case(c: &mut Criterion, name: &str, head: &GllmHead, inner: usize, products: f64, rows: usize) {
    let items = head.items();
    let hidden: Var = normal_var((rows, HIDDEN), 1.0, 5, &Device::Cpu).unwrap();
    let item = |row: usize, n: usize| ((row * 7919 + n * 104_729) % items) as u32;
    let lists = |shift| -> Vec<Vec<u32>> {
        (0..rows).map(|r| (0..TARGETS).map(|n| item(r, n + shift)).collect()).collect()
    };
    let (targets, masked) = (lists(0), lists(TARGETS));
    let loss = || {
        let loss = head.loss(&hidden, None, None, &targets, &masked).unwrap();
        drop(loss.backward().unwrap());
    };
    let rank = || {
        let rows = hidden.as_tensor();
        drop(head.rank(rows, None, 1, &masked, 20, Decoder::FirstLogit).unwrap());
    };
    let plain = product(rows, items, inner);
    let dense = 4.0 * (rows * items) as f64;
    for (what, products, f) in
        [("loss and gradients", products, &loss as &dyn Fn()), ("top 20", 1.0, &rank)]
    {
        let memory = peak(f);
        let seconds = best(f);
        let limit = products * plain;
        println!(
            "{name}, {rows} x {items}, {what:<18}: {:.0} ms; the product {products} times takes {:.0} ms = {:.0} %; \
             peak {:.0} MB, all logits {:.0} MB",
            1e3 * seconds,
            1e3 * limit,
            100.0 * limit / seconds,
            memory / 1e6,
            dense / 1e6
        );
        c.bench_function(&format!("{name}, {rows} rows, {what}"), |b| b.iter(f));
    }
}

fn main() {
    let wanted = |name: &str| {
        let mut words = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
        words.next().is_none_or(|filter| name.contains(&filter))
    };
    let mut c = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    if wanted("tied") {
        let nodes = normal_var((1_000_000, NODES), 1.0, 1, &Device::Cpu).unwrap();
        let head = GllmHead::tied(HIDDEN, nodes.as_tensor(), true, 2).unwrap();
        for rows in [32, 320] {
            case(&mut c, "tied", &head, NODES, 3.0, rows);
        }
    }
    if wanted("free") {
        // Drawing this many normal numbers would take longer than the bench.
        let weights = Tensor::full(0.01f32, (200_000, HIDDEN), &Device::Cpu).unwrap();
        let head = GllmHead::free_from(&weights, true).unwrap();
        drop(weights);
        for rows in [32, 320] {
            case(&mut c, "free", &head, HIDDEN, 4.0, rows);
        }
    }
    c.final_summary();
}
