//! Compares products in bf16 with sums in f64, instruction sets with each other, and a single row
//! with the same row in a batch.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::linear::Linear;
use crate::backend::Linear as _;
use crate::precision::Precision;
use crate::simd::SimdLevel;
use crate::weights::{Arena, GptqTensors, Matrix, ScalesRef};

const K: usize = 192;
const GROUP: usize = 64;

/// Creates random weights of `n` outputs. With `act_order`, the inputs are not sorted by group.
fn quantized(bits: u32, n: usize, sym: bool, act_order: bool, seed: u64) -> Arc<Matrix> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n_groups = K / GROUP;
    let words = |rng: &mut ChaCha8Rng, len| (0..len).map(|_| rng.random()).collect::<Vec<u32>>();
    let qweight = words(&mut rng, K * bits as usize / 32 * n);
    let mut qzeros = words(&mut rng, n_groups * n * bits as usize / 32);
    if sym {
        qzeros.fill(if bits == 2 { 0x5555_5555 } else { 0x7777_7777 });
    }
    let scales: Vec<f32> = (0..n_groups * n).map(|_| rng.random_range(0.01..0.02)).collect();
    let group = |i| if act_order { i % n_groups } else { i / GROUP };
    let g_idx: Vec<u32> = (0..K).map(|i| group(i) as u32).collect();
    let tensors = GptqTensors {
        bits,
        n,
        k: K,
        n_groups,
        qweight: &qweight,
        qzeros: &qzeros,
        v1: true,
        scales: ScalesRef::F32(&scales),
        g_idx: &g_idx,
    };
    Arc::new(Matrix::quantized(&Arena::default(), &tensors).unwrap())
}

fn random(rows: usize, width: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    (0..rows * width).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn run(x: &[f32], width: usize, f: impl Fn(&Tensor) -> Tensor) -> Vec<f32> {
    let x = Tensor::from_slice(x, (x.len() / width, width), &Device::Cpu).unwrap();
    f(&x).flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the root of the sum of squared errors, relative to the norm of the expected values.
fn error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let off: f64 = got.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    (off / expected.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

fn rounded(x: f32) -> f64 {
    f64::from(bf16::from_f32(x).to_f32())
}

#[test]
fn products_equal_those_of_rounded_inputs() {
    let mut cases = 0;
    for (bits, sym, act_order) in [
        (4, true, false),
        (4, false, false),
        (4, true, true),
        (2, true, false),
        (2, false, true),
        (4, false, true),
    ] {
        // The second part does not fill its last panel.
        let parts = [(96, 1), (80, 2)].map(|(n, seed)| quantized(bits, n, sym, act_order, seed));
        let outputs = 176;
        let weights: Vec<f32> = parts.iter().flat_map(|m| m.to_row_major()).collect();
        // Test one row, one tile, several tiles and several blocks.
        for rows in [1, 5, 29, 250] {
            let (x, dy) = (random(rows, K), random(rows, outputs));
            let mut y = vec![0.0; rows * outputs];
            let mut dx = vec![0.0; rows * K];
            for r in 0..rows {
                for n in 0..outputs {
                    for k in 0..K {
                        let w = weights[n * K + k];
                        y[r * outputs + n] += rounded(x[r * K + k]) * f64::from(w);
                        dx[r * K + k] += rounded(dy[r * outputs + n]) * rounded(w);
                    }
                }
            }
            for level in SimdLevel::supported() {
                let fused = parts.iter().map(|m| (Arc::clone(m), None)).collect();
                let op = Linear::new(fused, level, Precision::Bf16).unwrap();
                let got = run(&x, K, |x| op.forward(x, None).unwrap());
                assert!(error(&got, &y) < 1e-6, "{level:?}: {:e}", error(&got, &y));
                let got = run(&dy, outputs, |dy| op.backward(dy).unwrap());
                assert!(error(&got, &dx) < 1e-6, "{level:?}: {:e}", error(&got, &dx));
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 24 * SimdLevel::supported().count());
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    for level in SimdLevel::supported() {
        for (bits, sym) in [(4, true), (4, false), (2, true)] {
            let parts = vec![(quantized(bits, 96, sym, false, 3), None)];
            let op = Linear::new(parts, level, Precision::Bf16).unwrap();
            let x = random(250, K);
            let all = run(&x, K, |x| op.forward(x, None).unwrap());
            for (x, y) in x.chunks(K).zip(all.chunks(96)).step_by(31) {
                assert_eq!(run(x, K, |x| op.forward(x, None).unwrap()), y, "{level:?}");
            }
            let dy = random(250, 96);
            let all = run(&dy, 96, |dy| op.backward(dy).unwrap());
            for (dy, dx) in dy.chunks(96).zip(all.chunks(K)).step_by(31) {
                assert_eq!(run(dy, 96, |dy| op.backward(dy).unwrap()), dx, "{level:?}");
            }
        }
    }
}

#[test]
fn other_widths_use_f32() {
    for bits in [3, 8] {
        let matrix = quantized(bits, 96, false, false, 4);
        let x = random(5, K);
        let [a, b] = [Precision::F32, Precision::Bf16].map(|precision| {
            let op = Linear::new(vec![(Arc::clone(&matrix), None)], SimdLevel::detect(), precision)
                .unwrap();
            run(&x, K, |x| op.forward(x, None).unwrap())
        });
        assert_eq!(a, b);
    }
}

#[test]
fn nan_and_infinity_are_propagated() {
    for level in SimdLevel::supported() {
        let op =
            Linear::new(vec![(quantized(4, 96, true, false, 5), None)], level, Precision::Bf16)
                .unwrap();
        for rows in [1, 5] {
            for bad in [f32::NAN, f32::from_bits(0x7f80_0001), f32::INFINITY, f32::MAX] {
                let mut x = random(rows, K);
                x[(rows - 1) * K + 3] = bad;
                let y = run(&x, K, |x| op.forward(x, None).unwrap());
                assert!(y[(rows - 1) * 96..].iter().all(|y| !y.is_finite()), "{level:?} {bad}");
                assert!(y[..(rows - 1) * 96].iter().all(|y| y.is_finite()));
            }
        }
    }
}
