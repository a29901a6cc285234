//! Every kernel, with the launch parameters of a GPU but on the host, against the operations on the
//! CPU.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::call::Call;
use super::device::Cuda;
use super::driver::{Driver, Graph};
use super::elementwise;
use super::emulator::Emulator;
use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch, unwritten};
use super::quantized::Quantized;
use super::stream::Stream;
use crate::backend::{Backend, Keys as _, Linear as _, Norm as _};
use crate::error::Result;
use crate::heads::Heads;
use crate::host::Host;
use crate::precision::Precision;
use crate::sequences::Sequences;
use crate::weights::{Arena, GptqTensors, Matrix, ScalesRef};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

pub(super) fn random(shape: (usize, usize), seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

pub(super) fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `x` in the dtype of activations, and the same values in f32.
fn rounded(x: &Tensor, a: &Cuda) -> (Tensor, Tensor) {
    // A copy, so that kernels that work in place do not change both.
    let low = x.to_dtype(a.dtype).unwrap().copy().unwrap();
    let back = low.to_dtype(DType::F32).unwrap().copy().unwrap();
    (low, back)
}

/// Root of the squared error, relative to the norm.
fn error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (values(got), values(expected));
    let off: f64 =
        got.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let norm: f64 = expected.iter().map(|&b| f64::from(b).powi(2)).sum();
    (off / norm.max(1e-12)).sqrt()
}

/// Within the tolerance of a dtype; NaN fails.
#[track_caller]
fn close(what: &str, got: &Tensor, expected: &Tensor, a: &Cuda) {
    let bound = if a.dtype == DType::F32 { 1e-5 } else { 1e-2 };
    let off = error(got, expected);
    let key = format!("{} {:?}", what.split(',').next().unwrap_or(what), a.dtype);
    LARGEST.with_borrow_mut(|all| {
        let largest = all.entry(key).or_default();
        *largest = largest.max(off);
    });
    assert!(off <= bound, "{what}, {:?}: {off:e}", a.dtype);
}

thread_local! {
    /// The largest error of each kind, for [`show`].
    static LARGEST: RefCell<BTreeMap<String, f64>> = RefCell::default();
}

/// Prints the largest errors of a test; visible with `--nocapture`.
#[allow(clippy::print_stdout)]
fn show() {
    LARGEST.with_borrow(|all| {
        for (what, off) in all {
            println!("largest relative error of {what}: {off:.1e}");
        }
    });
}

fn host() -> Host {
    Host::new(None, Precision::F32).unwrap()
}

fn devices() -> impl Iterator<Item = Cuda> {
    PRECISIONS.into_iter().map(Cuda::emulated)
}

#[test]
fn norms_and_activations() {
    let host = host();
    for a in devices() {
        for (rows, width) in [(1, 4), (3, 37), (5, 96), (2, 1030)] {
            let (x, residual) = (random((rows, width), 1), random((rows, width), 3));
            let (dy, dy32) = rounded(&random((rows, width), 2), &a);
            let weight = values(&random((1, width), 4));
            let norm = host.norm(weight.clone(), 1e-5).unwrap();
            let device = a.norm(weight.clone(), 1e-5).unwrap();
            let got = device.forward(&x).unwrap();
            assert_eq!(got.dtype(), a.dtype);
            close("rms_norm", &got, &norm.forward(&x).unwrap(), &a);
            for residual in [None, Some(&residual)] {
                let got = device.backward(&x, &dy, residual).unwrap();
                let expected = norm.backward(&x, &dy32, residual).unwrap();
                let exact = Cuda::emulated(Precision::F32);
                close("rms_norm_backward", &got, &expected, &exact);
            }
            if a.dtype != DType::F32 {
                // As f32 it would be read beyond its end.
                assert!(device.forward(&dy).is_err());
                assert!(device.backward(&dy, &dy, None).is_err());
                assert!(device.backward(&x, &dy, Some(&dy)).is_err());
            }
            let got = a.final_norm(weight, 1e-5).unwrap().forward(&x).unwrap();
            let expected = norm.forward(&x).unwrap();
            close("rms_norm", &got, &expected, &Cuda::emulated(Precision::F32));
            let (gate_up, gate_up32) = rounded(&(random((rows, 2 * width), 5) * 4.0).unwrap(), &a);
            let got = a.swiglu(&gate_up).unwrap();
            close("swiglu", &got, &host.swiglu(&gate_up32).unwrap(), &a);
            let got = a.swiglu_backward(&gate_up, &dy).unwrap();
            close("swiglu_backward", &got, &host.swiglu_backward(&gate_up32, &dy32).unwrap(), &a);
        }
    }
    show();
}

#[test]
fn rows_and_columns_are_moved() {
    let index = Tensor::new(&[4u32, u32::MAX, 0, 4, 2], &Device::Cpu).unwrap();
    let expected = |x: &Tensor, dim: usize| {
        let known = Tensor::new(&[4u32, 0, 0, 4, 2], &Device::Cpu).unwrap();
        let rows = x.index_select(&known, dim).unwrap();
        let keep = Tensor::new(&[1f32, 0.0, 1.0, 1.0, 1.0], &Device::Cpu).unwrap();
        let keep = if dim == 0 { keep.reshape((5, 1)).unwrap() } else { keep };
        rows.broadcast_mul(&keep).unwrap()
    };
    for a in devices() {
        let (x, x32) = rounded(&random((5, 70), 1), &a);
        let got = elementwise::gather_rows(&a.stream, &x, &index).unwrap();
        assert_eq!(got.dtype(), DType::F32);
        assert!(values(&got) == values(&expected(&x32, 0)), "{:?}", a.dtype);
        let (x, x32) = rounded(&random((3, 5), 1), &a);
        let got = elementwise::gather_columns(&a.stream, &x, &index).unwrap();
        assert!(values(&got) == values(&expected(&x32, 1)));

        let (y, y32) = rounded(&random((3, 300), 2), &a);
        let (residual, residual32) = rounded(&random((3, 300), 3), &a);
        let bias = random((1, 300), 4).flatten_all().unwrap();
        elementwise::add(&a.stream, &y, Some(&bias), Some(&residual)).unwrap();
        let sum = (y32.broadcast_add(&bias).unwrap() + residual32).unwrap();
        close("add", &y, &sum, &a);
    }
}

#[test]
fn rows_are_added_in_order() {
    let host = host();
    let a = Cuda::emulated(Precision::Bf16);
    for (rows, width, len) in [(1, 4, 9), (5, 37, 40), (7, 1030, 3), (300, 8, 1000)] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let index: Vec<u32> = (0..len)
            .map(|_| if rng.random_bool(0.2) { u32::MAX } else { rng.random_range(0..rows as u32) })
            .collect();
        let (x, dy) = (random((rows, width), 1), random((len, width), 2));
        let got = a.rows(&x, &index).unwrap();
        assert!(values(&got) == values(&host.rows(&x, &index).unwrap()), "{rows} x {width}");
        let got = a.rows_backward(&dy, &index, rows).unwrap();
        let expected = host.rows_backward(&dy, &index, rows).unwrap();
        assert!(values(&got) == values(&expected), "{rows} x {width}");
    }
    let x = random((3, 8), 1);
    for index in [[0, 3], [7, u32::MAX]] {
        assert!(a.rows(&x, &index).is_err() && host.rows(&x, &index).is_err());
        let dy = random((2, 8), 1);
        assert!(a.rows_backward(&dy, &index, 3).is_err());
        assert!(host.rows_backward(&dy, &index, 3).is_err());
    }
    assert!(a.rows_backward(&x, &[0, 1], 3).is_err());
}

/// A random layer in GPTQ's format.
pub(super) fn quantized(
    bits: u32,
    (n, k): (usize, usize),
    group: usize,
    shuffled: bool,
    f16_scales: bool,
    seed: u64,
) -> Arc<Matrix> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let groups = k.div_ceil(group);
    let words = |rng: &mut ChaCha8Rng, len| (0..len).map(|_| rng.random()).collect::<Vec<u32>>();
    let qweight = words(&mut rng, k * bits as usize / 32 * n);
    let qzeros = words(&mut rng, groups * n * bits as usize / 32);
    let scales: Vec<f32> = (0..groups * n).map(|_| rng.random_range(0.01..0.02)).collect();
    let halves: Vec<u16> = scales.iter().map(|&s| half::f16::from_f32(s).to_bits()).collect();
    let mut g_idx: Vec<u32> = (0..k).map(|i| (i / group) as u32).collect();
    if shuffled {
        g_idx.shuffle(&mut rng);
    }
    let tensors = GptqTensors {
        bits,
        n,
        k,
        n_groups: groups,
        qweight: &qweight,
        qzeros: &qzeros,
        v1: true,
        scales: if f16_scales { ScalesRef::F16(&halves) } else { ScalesRef::F32(&scales) },
        g_idx: &g_idx,
    };
    Arc::new(Matrix::quantized(&Arena::default(), &tensors).unwrap())
}

#[test]
fn weights_are_dequantised_exactly() {
    for bits in [2, 3, 4, 8] {
        for ((n, k), group) in [((32, 32), 32), ((96, 160), 64), ((64, 224), 224)] {
            for f16_scales in [true, false] {
                let matrix = quantized(bits, (n, k), group, false, f16_scales, 7);
                let expected = matrix.to_row_major();
                let expected = Tensor::from_vec(expected, (n, k), &Device::Cpu).unwrap();
                for a in devices() {
                    let q = Quantized::upload(&matrix, &a).unwrap();
                    let w = unwritten((q.inputs, n), a.dtype, &a.device).unwrap();
                    q.dequantise(&w, 0).unwrap();
                    let w = w.narrow(0, 0, k).unwrap().t().unwrap().contiguous().unwrap();
                    let exact = expected.to_dtype(a.dtype).unwrap();
                    assert!(values(&w) == values(&exact), "{bits} bits, {n} x {k}");
                }
            }
        }
    }
}

#[test]
fn linear_layers() {
    let mut seed = 0;
    for bits in [2, 3, 4, 8] {
        // The outputs do not fill a panel, the inputs do not fill a step or group.
        let n = if bits == 3 { 32 } else { 48 };
        for (k, group, shuffled) in [(64, 32, false), (160, 64, true), (288, 288, false)] {
            seed += 1;
            let part = |n, seed| quantized(bits, (n, k), group, shuffled, seed % 2 == 0, seed);
            let bias = |n| Some(values(&random((1, n), 9)));
            // Three parts; if `shuffled`, each of them stores its inputs in its own order.
            let parts = vec![
                (part(64, seed), bias(64)),
                (part(n, seed), None),
                (part(32, 100 + seed), bias(32)),
            ];
            let host = host().linear(parts.clone()).unwrap();
            for a in devices() {
                let device = a.linear(parts.clone()).unwrap();
                for rows in [0, 1, 2, 3, 5, 8, 9, 13, 16, 17, 33, 64, 65] {
                    let of_f32 = [2, 5, 8, 13, 16];
                    let of_tiles = [9, 33, 64, 65];
                    let others = if a.dtype == DType::F32 { &of_tiles[..] } else { &of_f32[..] };
                    if others.contains(&rows) {
                        continue;
                    }
                    let what = format!("{bits} bits, {k} inputs of {group}, {rows} rows");
                    let (x, x32) = rounded(&random((rows, k), 11), &a);
                    let r = random((rows, 96 + n), 12);
                    for (residual, dtype) in [(None, a.dtype), (Some(&r), DType::F32)] {
                        let got = device.forward(&x, residual).unwrap();
                        assert_eq!(got.dtype(), dtype);
                        close(&what, &got, &host.forward(&x32, residual).unwrap(), &a);
                    }
                    let (dy, dy32) = rounded(&random((rows, 96 + n), 13), &a);
                    assert_eq!(device.forward(&x, Some(&dy)).is_err(), a.dtype != DType::F32);
                    let got = device.backward(&dy).unwrap();
                    let what = format!("{bits} bits backward, {k} inputs, {rows} rows");
                    close(&what, &got, &host.backward(&dy32).unwrap(), &a);
                }
            }
        }
    }
    show();
}

#[test]
fn one_row_on_the_f32_units() {
    for bits in [2, 3, 4, 8] {
        let parts = vec![(quantized(bits, (64, 288), 96, false, true, 5), None)];
        let host = host().linear(parts.clone()).unwrap();
        for a in devices() {
            let device = a.clone().one_row_in_f32(true).linear(parts.clone()).unwrap();
            let (x, x32) = rounded(&random((1, 288), 11), &a);
            let got = device.forward(&x, None).unwrap();
            close("one row", &got, &host.forward(&x32, None).unwrap(), &a);
        }
    }
    show();
}

#[test]
fn norms_and_activations_in_a_product() {
    let host = host();
    for (bits, group, shuffled) in [(2, 32, false), (3, 640, false), (4, 128, false), (8, 64, true)]
    {
        // Several parts of the inputs, and panels that do not fill the last block.
        let part = |seed| quantized(bits, (96, 640), group, shuffled, true, seed);
        let bias = |seed| Some(values(&random((1, 96), seed)));
        // Two layers have the same order only if they are the same.
        let up = if shuffled { part(1) } else { part(2) };
        let parts = vec![(part(1), bias(3)), (up, bias(4))];
        let weight = values(&random((1, 640), 5));
        let (linear, norm) =
            (host.linear(parts.clone()).unwrap(), host.norm(weight.clone(), 1e-5).unwrap());
        for a in devices() {
            let device = a.linear(parts.clone()).unwrap();
            let device_norm = a.norm(weight.clone(), 1e-5).unwrap();
            for rows in [0, 1, 8, 11] {
                let x = (random((rows, 640), 6) * 3.0).unwrap();
                let got = a.normed(&device_norm, &device, &x).unwrap();
                assert_eq!(got.dtype(), a.dtype);
                close("normed product", &got, &host.normed(&norm, &linear, &x).unwrap(), &a);
                let got = a.gated(&device_norm, &device, &x).unwrap();
                close("gated product", &got, &host.gated(&norm, &linear, &x).unwrap(), &a);
                // One kernel computes both, on the tensor cores.
                let fused = rows > 0 && a.dtype != DType::F32;
                let (low, _) = rounded(&x, &a);
                assert_eq!(device.fused(&low, None, true).unwrap().is_some(), fused);
                let fused = fused && a.dtype == DType::BF16 && rows <= 8 && !shuffled;
                let normed = Some(device_norm.normed());
                assert_eq!(device.fused(&x, normed, true).unwrap().is_some(), fused);
            }
            assert!(a.normed(&device_norm, &device, &random((2, 640), 6)).is_ok());
            let low = random((2, 640), 6).to_dtype(DType::F16).unwrap();
            assert!(a.normed(&device_norm, &device, &low).is_err());
            assert!(a.gated(&device_norm, &device, &low).is_err());
        }
    }
    show();
}

#[test]
fn dense_layers() {
    let dense = |n, seed| {
        let w = values(&random((n, 40), seed));
        Arc::new(Matrix::dense_f32(&Arena::default(), n, 40, &w).unwrap())
    };
    let parts = vec![(dense(35, 1), None), (dense(7, 2), Some(vec![0.5; 7]))];
    let host = host().linear(parts.clone()).unwrap();
    for a in devices() {
        let device = a.linear(parts.clone()).unwrap();
        let (x, x32) = rounded(&random((5, 40), 3), &a);
        let (dy, dy32) = rounded(&random((5, 42), 4), &a);
        close("dense", &device.forward(&x, None).unwrap(), &host.forward(&x32, None).unwrap(), &a);
        close("dense", &device.backward(&dy).unwrap(), &host.backward(&dy32).unwrap(), &a);
        let got = device.forward_f32(&x32).unwrap();
        assert_eq!(got.dtype(), DType::F32);
        close("dense", &got, &host.forward(&x32, None).unwrap(), &a);
    }
}

pub(super) fn rotary<B: Backend>(backend: &B, positions: usize, half: usize) -> Arc<B::Rotary> {
    let angle = |i: usize| (i / half) as f32 / (1 + i % half) as f32;
    let cos = (0..positions * half).map(|i| angle(i).cos()).collect();
    let sin = (0..positions * half).map(|i| angle(i).sin()).collect();
    Arc::new(backend.rotary(cos, sin, half).unwrap())
}

fn tokens<B: Backend>(backend: &B, sequences: &Arc<Sequences>, heads: Heads) -> B::Tokens {
    let rotary = rotary(backend, sequences.context(), heads.dim / 2);
    backend.tokens(sequences, &rotary).unwrap()
}

/// Heads, lengths of sequences, and shared keys.
fn batches() -> Vec<(Heads, Vec<usize>, usize)> {
    let heads = |queries, keys, dim| Heads { queries, keys, dim, window: None };
    vec![
        (heads(2, 2, 8), vec![1], 0),
        (heads(4, 2, 20), vec![5, 33, 1], 0),
        (heads(3, 1, 64), vec![33, 33], 7),
        (heads(2, 1, 68), vec![2, 70], 33),
        (heads(4, 4, 128), vec![31, 32], 64),
        (heads(6, 2, 16), vec![64, 65], 0),
        (heads(2, 2, 32), vec![130], 70),
        (heads(2, 1, 80), vec![1, 97], 64),
        (heads(3, 1, 96), vec![66], 31),
        (heads(2, 1, 128), vec![130, 3], 65),
    ]
}

/// The layer that the tests use, of [`LAYERS`].
const LAYER: usize = 1;
const LAYERS: usize = 2;

/// The keys of `rows: (tokens, stride)`.
fn earlier<B: Backend>(backend: &B, heads: Heads, rows: &Tensor) -> B::Keys {
    let mut keys = backend.keys(LAYERS, heads, true);
    let n = rows.dims()[0];
    if n > 0 {
        let sequences = Arc::new(Sequences::new(&[n], |_| 0));
        let tokens = tokens(backend, &sequences, heads);
        let mut caches = backend.caches(&sequences, vec![&mut keys]).unwrap();
        for layer in 0..LAYERS {
            backend.attention_cached(rows, heads, &tokens, &mut caches, layer, None).unwrap();
        }
    }
    keys
}

/// The same keys on both backends.
fn twins(
    a: &Cuda,
    heads: Heads,
    n: usize,
    seed: u64,
) -> (<Host as Backend>::Keys, <Cuda as Backend>::Keys) {
    let (rows, rows32) = rounded(&random((n, heads.stride()), seed), a);
    (earlier(&host(), heads, &rows32), earlier(a, heads, &rows))
}

/// Attention of sequences that continue their caches.
fn cached<B: Backend>(
    backend: &B,
    heads: Heads,
    sequences: &Arc<Sequences>,
    qkv: &Tensor,
    keys: &mut [B::Keys],
    shared: Option<&B::Keys>,
) -> Tensor {
    let tokens = tokens(backend, sequences, heads);
    let mut caches = backend.caches(sequences, keys.iter_mut().collect()).unwrap();
    backend.attention_cached(qkv, heads, &tokens, &mut caches, LAYER, shared).unwrap()
}

#[test]
fn attention_and_its_gradient() {
    let host = host();
    for a in devices() {
        for (heads, lengths, shared) in batches() {
            let sequences = Arc::new(Sequences::new(&lengths, |_| shared));
            let n = sequences.tokens();
            let what = format!("{heads:?}, {lengths:?} behind {shared}");
            let at = tokens(&a, &sequences, heads);
            let at_host = tokens(&host, &sequences, heads);
            let (qkv, qkv32) = rounded(&(random((n, heads.stride()), 1) * 2.0).unwrap(), &a);

            let rotated = qkv.copy().unwrap();
            let expected = qkv32.copy().unwrap();
            for inverse in [false, true] {
                a.rotate(&rotated, heads, &at, inverse).unwrap();
                host.rotate(&expected, heads, &at_host, inverse).unwrap();
                close("rope", &rotated, &expected, &a);
            }

            let (keys_host, keys) = twins(&a, heads, shared, 2);
            let keys_host = Some(&keys_host).filter(|_| shared > 0);
            let keys = Some(&keys).filter(|_| shared > 0);
            let (out, attended) = a.attention(&qkv, heads, &at, LAYER, keys).unwrap();
            let (expected, ()) = host.attention(&qkv32, heads, &at_host, LAYER, keys_host).unwrap();
            close("attention", &out, &expected, &a);

            let width = heads.queries * heads.dim;
            let (d_out, d_out32) = rounded(&random((n, width), 3), &a);
            let d_qkv =
                a.attention_backward(&qkv, &attended, &d_out, heads, &at, LAYER, keys).unwrap();
            let expected = host
                .attention_backward(&qkv32, &(), &d_out32, heads, &at_host, LAYER, keys_host)
                .unwrap();
            close(&format!("d_qkv, {what}"), &d_qkv, &expected, &a);
            if n == 1 {
                // With one key its weight is one for any query, so the gradient is zero.
                continue;
            }
            for (part, from, len) in [
                ("d_queries", 0, width),
                ("d_keys", heads.key_at(), heads.keys * heads.dim),
                ("d_values", heads.value_at(), heads.keys * heads.dim),
            ] {
                let cut = |t: &Tensor| t.narrow(1, from, len).unwrap().contiguous().unwrap();
                close(&format!("{part}, {what}"), &cut(&d_qkv), &cut(&expected), &a);
            }
        }
    }
    show();
}

#[test]
fn decoding_over_pieces_of_the_keys() {
    let host = host();
    let heads = Heads { queries: 4, keys: 2, dim: 12, window: None };
    for a in devices() {
        for shared in [0, 260] {
            // The new key is the first and the last one of a piece.
            let lengths = [255usize.saturating_sub(shared), 256, 600];
            let (mut blocks, mut keys): (Vec<_>, Vec<_>) =
                (5..).zip(lengths).map(|(seed, len)| twins(&a, heads, len, seed)).unzip();
            let sequences = Arc::new(Sequences::new(&[1; 3], |row| shared + lengths[row]));
            let (first_host, first) = twins(&a, heads, shared, 2);
            let first = Some(&first).filter(|_| shared > 0);
            let first_host = Some(&first_host).filter(|_| shared > 0);
            // Two tokens: the second one reads the key that the first one appended.
            for seed in [4, 9] {
                let added = usize::from(seed == 9);
                let sequences = match added {
                    0 => Arc::clone(&sequences),
                    _ => Arc::new(Sequences::new(&[1; 3], |row| shared + lengths[row] + 1)),
                };
                let (qkv, qkv32) = rounded(&random((3, heads.stride()), seed), &a);
                let got = cached(&a, heads, &sequences, &qkv, &mut keys, first);
                let expected = cached(&host, heads, &sequences, &qkv32, &mut blocks, first_host);
                close("decoding", &got, &expected, &a);
            }
        }
    }
    show();
}

/// The emulator, which counts launches by the host, and graphs.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) launches: Mutex<Vec<Kernel>>,
    pub(super) graphs: AtomicUsize,
    pub(super) free: Option<usize>,
}

impl Counting {
    /// A device with this driver.
    pub(super) fn device(precision: Precision) -> (Arc<Self>, Cuda) {
        Self::with_free_memory(precision, None)
    }

    /// The same for a device that says how much memory is free.
    fn with_free_memory(precision: Precision, free: Option<usize>) -> (Arc<Self>, Cuda) {
        let counting = Arc::new(Self { free, ..Self::default() });
        let stream = Arc::new(Stream::new(Arc::<Self>::clone(&counting)));
        (counting, Cuda { stream, ..Cuda::emulated(precision) })
    }
}

impl Driver for Counting {
    fn load(&self, source: Source) -> Result<()> {
        Emulator.load(source)
    }
    fn queue(&self, kernel: Kernel, dtype: DType, launch: Launch, args: &[Arg]) -> Result<()> {
        self.launches.lock().unwrap().push(kernel);
        Emulator.queue(kernel, dtype, launch, args)
    }
    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(self.free)
    }
    fn address(&self, tensor: &Tensor) -> Result<u64> {
        Emulator.address(tensor)
    }
    fn multiply(&self, x: &Tensor, w: &Tensor, y: &Tensor, first: usize) -> Result<()> {
        Emulator.multiply(x, w, y, first)
    }
    fn graph(&self, calls: &[Call]) -> Result<Option<Box<dyn Graph>>> {
        self.graphs.fetch_add(1, Ordering::Relaxed);
        // Its launches are not those of the host.
        Stream::new(Arc::new(Emulator)).graph(calls.to_vec()).map(Some)
    }
}

#[test]
fn dequantised_weights_stay_if_memory_allows() {
    // Two layers of 64 x 96 weights of two bytes; the first is allocated when it is asked.
    let size = 64 * 96 * 2;
    let passes = |free, asked| {
        let (counting, a) = Counting::with_free_memory(Precision::Bf16, free);
        let a = a.keep_dequantised(asked);
        let part = |seed| (quantized(4, (64, 96), 32, false, true, seed), None);
        let layers = [1, 2].map(|seed| a.linear(vec![part(seed)]).unwrap());
        let before: usize = layers.iter().map(|layer| layer.resident_bytes()).sum();
        let x = rounded(&random((70, 96), 3), &a).0;
        let mut results = Vec::new();
        for _ in 0..2 {
            for layer in &layers {
                let y = layer.forward(&x, None).unwrap();
                results.extend([values(&layer.backward(&y).unwrap()), values(&y)]);
            }
        }
        let launches = counting.launches.lock().unwrap();
        let dequantised =
            launches.iter().filter(|kernel| matches!(kernel, Kernel::Dequantise(_))).count();
        let after: usize = layers.iter().map(|layer| layer.resident_bytes()).sum();
        (dequantised, after - before, results)
    };
    let (dequantised, kept, expected) = passes(None, None);
    assert_eq!((dequantised, kept), (8, 0));
    for (free, asked, keeps) in [
        (Some(2 * size), None, true),
        (Some(2 * size - 1), None, false),
        (Some(2 * size), Some(false), false),
        (Some(0), Some(true), true),
        (None, Some(true), true),
    ] {
        let (dequantised, kept, results) = passes(free, asked);
        let counts = if keeps { (2, 2 * size) } else { (8, 0) };
        assert_eq!((dequantised, kept), counts, "{free:?} {asked:?}");
        assert!(results == expected);
    }
}

/// As a decoder layer decodes one token of each text.
#[test]
fn a_layer_decodes_in_five_launches() {
    let heads = Heads { queries: 4, keys: 2, dim: 16, window: None };
    for (precision, texts, expected) in
        [(Precision::Bf16, 1, 5), (Precision::Bf16, 8, 5), (Precision::Bf16, 9, 7)]
    {
        let (counting, a) = Counting::device(precision);
        let layer = |outputs: &[usize], inputs| {
            let part = |&n| (quantized(4, (n, inputs), 32, false, true, n as u64), None);
            a.linear(outputs.iter().map(part).collect()).unwrap()
        };
        let (qkv, o) = (layer(&[64, 32, 32], 64), layer(&[64], 64));
        let (gate_up, down) = (layer(&[96, 96], 64), layer(&[64], 96));
        let norm = a.norm(vec![1.0; 64], 1e-5).unwrap();
        let sequences = Arc::new(Sequences::new(&vec![1; texts], |_| 0));
        let at = tokens(&a, &sequences, heads);
        let mut keys = vec![a.keys(LAYERS, heads, false); texts];
        let mut caches = a.caches(&sequences, keys.iter_mut().collect()).unwrap();
        let x = random((texts, 64), 1);

        let projected = a.normed(&norm, &qkv, &x).unwrap();
        let out = a.attention_cached(&projected, heads, &at, &mut caches, LAYER, None).unwrap();
        let middle = o.forward(&out, Some(&x)).unwrap();
        let h = a.gated(&norm, &gate_up, &middle).unwrap();
        down.forward(&h, Some(&middle)).unwrap();
        let launches = counting.launches.lock().unwrap();
        assert_eq!(launches.len(), expected, "{launches:?}");
    }
}

#[test]
fn attention_over_caches() {
    let host = host();
    for a in devices() {
        for (heads, _, shared) in batches() {
            // One token each, then several, after caches of different lengths.
            for added in [[1, 1, 1], [1, 40, 3]] {
                let caches = [(5, 0), (6, 37), (7, 70)];
                let (mut blocks, mut keys): (Vec<_>, Vec<_>) =
                    caches.iter().map(|&(seed, len)| twins(&a, heads, len, seed)).unzip();
                // Appending to one clone does not change the other.
                let others = keys.clone();
                let before = |row: usize| shared + caches[row].1;
                let sequences = Arc::new(Sequences::new(&added, before));
                let n = sequences.tokens();
                let (qkv, qkv32) = rounded(&random((n, heads.stride()), 4), &a);
                let (first_host, first) = twins(&a, heads, shared, 2);
                let first = Some(&first).filter(|_| shared > 0);
                let first_host = Some(&first_host).filter(|_| shared > 0);

                let got = cached(&a, heads, &sequences, &qkv, &mut keys, first);
                let expected = cached(&host, heads, &sequences, &qkv32, &mut blocks, first_host);
                let what = if added[1] == 1 { "decoding" } else { "attention over caches" };
                close(what, &got, &expected, &a);
                for ((other, own), added) in others.iter().zip(&keys).zip(added) {
                    assert_eq!(other.len() + added, own.len());
                }
            }
        }
    }
    show();
}
