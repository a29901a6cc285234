//! Checks that mismatched arguments are errors on every backend, never undefined behaviour.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use glta_kernels::{
    Arena, Backend, Cuda, GptqTensors, Heads, Host, Linear, Matrix, Precision, ScalesRef, Sequences,
};

fn dense(n: usize, k: usize) -> Arc<Matrix> {
    Arc::new(Matrix::dense_f32(&Arena::default(), n, k, &vec![0.5; n * k]).unwrap())
}

fn zeros(rows: usize, columns: usize) -> Tensor {
    Tensor::zeros((rows, columns), DType::F32, &Device::Cpu).unwrap()
}

fn tensors<'a>(n: usize, k: usize, words: &'a [u32], g_idx: &'a [u32]) -> GptqTensors<'a> {
    GptqTensors {
        bits: 4,
        n,
        k,
        n_groups: 1,
        qweight: &words[..k * n / 8],
        qzeros: &words[..n / 8],
        v1: true,
        scales: ScalesRef::F32(&[1.0; 64]),
        g_idx,
    }
}

fn tokens<B: Backend>(backend: &B, sequences: &Arc<Sequences>, half: usize) -> B::Tokens {
    let table = vec![0.5; 64 * half];
    let rotary = Arc::new(backend.rotary(table.clone(), table, half).unwrap());
    backend.tokens(sequences, &rotary).unwrap()
}

fn linear_layers<B: Backend>(backend: &B) {
    assert!(backend.linear(vec![]).is_err());
    assert!(backend.linear(vec![(dense(4, 3), None), (dense(4, 5), None)]).is_err());
    assert!(backend.linear(vec![(dense(4, 3), Some(vec![0.0; 3]))]).is_err());
    let layer = backend.linear(vec![(dense(4, 3), Some(vec![0.0; 4]))]).unwrap();
    assert!(layer.forward(&zeros(2, 3), None).is_ok());
    // Twice the width is not twice the rows.
    assert!(layer.forward(&zeros(2, 6), None).is_err());
    assert!(layer.forward(&zeros(2, 3), Some(&zeros(4, 2))).is_err());
    assert!(layer.backward(&zeros(2, 8)).is_err());
    assert!(layer.forward_f32(&zeros(1, 4)).is_err());
}

fn tables_and_batches<B: Backend>(backend: &B) {
    let words = vec![0; 1024];
    let packed = Matrix::quantized(&Arena::default(), &tensors(64, 32, &words, &[0; 32])).unwrap();
    assert!(backend.embedding(&Arc::new(packed)).is_err());
    let table = backend.embedding(&dense(5, 8)).unwrap();
    assert_eq!(backend.embed(&table, &[0, 4]).unwrap().dims(), [2, 8]);
    assert!(backend.embed(&table, &[5]).is_err());

    assert!(backend.rotary(vec![0.0; 6], vec![0.0; 4], 2).is_err());
    let rotary = Arc::new(backend.rotary(vec![0.0; 4], vec![0.0; 4], 2).unwrap());
    assert!(backend.tokens(&Arc::new(Sequences::new(&[3], |_| 0)), &rotary).is_err());

    let sequences = Sequences::new(&[3, 1], |_| 0);
    let batch = Tensor::zeros((2, 3, 8), DType::F32, &Device::Cpu).unwrap();
    let packed = backend.pack(&batch, &sequences).unwrap();
    assert_eq!(packed.dims(), [4, 8]);
    assert!(backend.unpack(&packed, &sequences, 2).is_err());
    assert!(backend.unpack(&zeros(3, 8), &sequences, 3).is_err());
    assert!(backend.pack(&batch, &Sequences::new(&[4, 1], |_| 0)).is_err());
}

fn attention<B: Backend>(backend: &B) {
    let heads = Heads { queries: 2, keys: 1, dim: 8, window: None };
    assert!(backend.check(Heads { keys: 0, ..heads }).is_err());
    assert!(backend.check(Heads { queries: 3, keys: 2, ..heads }).is_err());
    let sequences = Arc::new(Sequences::new(&[2, 1], |_| 0));
    let at = tokens(backend, &sequences, 4);
    let qkv = zeros(3, heads.stride());
    let fits = |keys: &B::Keys| backend.attention(&qkv, heads, &at, 1, Some(keys)).is_ok();
    assert!(fits(&backend.keys(2, heads, true)));
    assert!(!fits(&backend.keys(1, heads, true)));
    assert!(!fits(&backend.keys(2, Heads { dim: 4, ..heads }, true)));
    assert!(backend.attention(&zeros(2, heads.stride()), heads, &at, 0, None).is_err());
    assert!(backend.rotate(&zeros(3, 8), heads, &at, false).is_err());
    let wide = Heads { dim: 16, ..heads };
    assert!(backend.rotate(&zeros(3, wide.stride()), wide, &at, false).is_err());
    let (_, attended) = backend.attention(&qkv, heads, &at, 0, None).unwrap();
    let backward = |d_out| backend.attention_backward(&qkv, &attended, &d_out, heads, &at, 0, None);
    assert!(backward(zeros(3, 16)).is_ok());
    assert!(backward(zeros(3, 8)).is_err());

    let mut own = [backend.keys(2, heads, false), backend.keys(2, heads, false)];
    let [first, second] = &mut own;
    assert!(backend.caches(&sequences, vec![first]).is_err());
    let mut caches = backend.caches(&sequences, vec![first, second]).unwrap();
    assert!(backend.attention_cached(&qkv, heads, &at, &mut caches, 2, None).is_err());
    let other = Heads { queries: 4, keys: 2, dim: 4, window: None };
    let qkv = zeros(3, other.stride());
    assert!(backend.attention_cached(&qkv, other, &at, &mut caches, 0, None).is_err());
}

#[test]
fn on_the_cpu() {
    let host = Host::new(None, Precision::F32).unwrap();
    linear_layers(&host);
    tables_and_batches(&host);
    attention(&host);
    // A cache that is not differentiable lacks the layouts that a derivative reads.
    let heads = Heads { queries: 2, keys: 1, dim: 8, window: None };
    let sequences = Arc::new(Sequences::new(&[2], |_| 0));
    let at = tokens(&host, &sequences, 4);
    let mut shared = host.keys(1, heads, false);
    let mut caches = host.caches(&sequences, vec![&mut shared]).unwrap();
    let qkv = zeros(2, heads.stride());
    host.attention_cached(&qkv, heads, &at, &mut caches, 0, None).unwrap();
    let d_out = zeros(2, 16);
    assert!(host.attention_backward(&qkv, &(), &d_out, heads, &at, 0, Some(&shared)).is_err());
}

#[test]
fn on_an_emulated_gpu() {
    let cuda = Cuda::emulated(Precision::F32);
    linear_layers(&cuda);
    tables_and_batches(&cuda);
    attention(&cuda);
}

#[test]
fn tensors_of_a_weight() {
    let (arena, words, g_idx) = (Arena::default(), vec![0; 1024], [0; 32]);
    let fits = |t: GptqTensors| Matrix::quantized(&arena, &t).is_ok();
    let good = tensors(64, 32, &words, &g_idx);
    assert!(fits(good));
    assert!(!fits(GptqTensors { bits: 5, ..good }));
    assert!(!fits(GptqTensors { qweight: &words[..7], ..good }));
    assert!(!fits(GptqTensors { qzeros: &words[..7], ..good }));
    assert!(!fits(GptqTensors { scales: ScalesRef::F16(&[0; 63]), ..good }));
    assert!(!fits(GptqTensors { g_idx: &[1; 32], ..good }));
    assert!(!fits(GptqTensors { n: usize::MAX / 2, ..good }));
    assert!(!fits(GptqTensors { n_groups: usize::MAX, ..good }));
    assert!(Matrix::dense_f32(&arena, 2, 3, &[0.0; 5]).is_err());
    assert!(Matrix::dense_f16_bytes(&arena, usize::MAX, 3, &[0; 6]).is_err());
}
