//! Measures the memory of a training step. The allocator counts activations; weights are in
//! separate mappings.
#![allow(clippy::unwrap_used)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor, Var};
use glta_llm::{ForwardOptions, Llama, LlamaOptions};

use support::Spec;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let now = NOW.fetch_add(bytes, SeqCst) + bytes;
    PEAK.fetch_max(now, SeqCst);
}

// SAFETY: passes every call to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), SeqCst);
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        NOW.fetch_sub(layout.size(), SeqCst);
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counters belong to the process, so the tests run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the peak memory of a forward and backward pass, in bytes, in addition to the memory
/// before it.
fn peak(model: &Llama, rows: usize, len: usize, recompute: bool) -> usize {
    let hidden = model.config().hidden_size;
    let values: Vec<f32> =
        (0..rows * len * hidden).map(|i| (i % 97) as f32 / 500.0 - 0.1).collect();
    let x = Tensor::from_vec(values, (rows, len, hidden), &Device::Cpu).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let step = || {
        let options = ForwardOptions { recompute, ..Default::default() };
        let states = model.hidden_states(&x, &vec![len; rows], &options).unwrap();
        let gradients = states.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_some());
    };
    // Scratch buffers are kept after the first pass. With several threads, chance would determine
    // which of them needs the larger ones.
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| {
        step();
        let before = NOW.load(SeqCst);
        PEAK.store(before, SeqCst);
        step();
        PEAK.load(SeqCst) - before
    })
}

#[test]
fn recomputation_keeps_one_hidden_state_per_token_and_layer() {
    let _turn = alone();
    let spec = Spec { layers: 8, vocab: 64, inner: 160, ..Spec::default() };
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &spec);
    let load = |layers| {
        let options = LlamaOptions { layers: Some(layers), ..Default::default() };
        Llama::load(dir.path().join("gptq"), &options, &Device::Cpu).unwrap()
    };
    let (few, many) = (load(2), load(8));
    let by_layer = |len, recompute| {
        (peak(&many, 4, len, recompute) - peak(&few, 4, len, recompute)) as f64 / 6.0
    };
    let slope = |recompute| (by_layer(256, recompute) - by_layer(128, recompute)) / (4.0 * 128.0);
    let hidden_state = (4 * spec.hidden) as f64;
    let kept = slope(true) / hidden_state;
    assert!((0.98..1.02).contains(&kept), "{kept} hidden states per token and layer");
    // Without recomputation the projections, the states after attention and the input are kept as
    // well.
    let floats =
        (spec.heads + 2 * spec.kv_heads) * spec.head_dim + 2 * spec.hidden + 2 * spec.inner;
    let all = slope(false) / (4 * floats) as f64;
    assert!((0.98..1.02).contains(&all), "{all} of all activations");
}

#[test]
fn a_training_step_stays_within_its_bound() {
    let _turn = alone();
    let spec = Spec { layers: 3, vocab: 256, ..Spec::smollm2() };
    let dir = tempfile::tempdir().unwrap();
    support::write_large(dir.path(), &spec);
    let model = Llama::load(dir.path(), &LlamaOptions::default(), &Device::Cpu).unwrap();
    let tokens = 4 * 128;
    let width = (spec.heads + 2 * spec.kv_heads) * spec.head_dim + 2 * spec.hidden + 3 * spec.inner;
    let activations = 4 * tokens * width;
    let inputs = 4 * tokens * spec.hidden * (spec.layers + 1);
    let bound = 3 * (model.resident_bytes() + activations + inputs);
    let held = model.resident_bytes() + peak(&model, 4, 128, true);
    assert!(held < bound, "{held} bytes held, bound {bound}");
}
