//! Compares every derivative with finite differences of its forward pass, and the kernels of all
//! instruction sets with each other.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::attention::Attention;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rotary::{Rope, Rotary};
use super::swiglu::SwiGlu;
use crate::backend::{Linear as _, Norm as _};
use crate::cpu::keys::KeyBlock;
use crate::heads::Heads;
use crate::precision::Precision;
use crate::simd::SimdLevel;
use crate::weights::{Arena, Matrix};

fn random(shape: (usize, usize), seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    values(a).iter().zip(values(b)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum()
}

/// Checks `backward(dy)` against the slopes of `dy · forward(x)` along random directions.
fn check(x: &Tensor, forward: impl Fn(&Tensor) -> Tensor, backward: impl Fn(&Tensor) -> Tensor) {
    let y = forward(x);
    let dy = random(y.dims2().unwrap(), 91);
    let dx = backward(&dy);
    assert_eq!(dx.dims(), x.dims());
    let h = 1e-2;
    for seed in 0..6 {
        let direction = random(x.dims2().unwrap(), 100 + seed);
        let step = (&direction * h).unwrap();
        let slope = (dot(&forward(&(x + &step).unwrap()), &dy)
            - dot(&forward(&(x - &step).unwrap()), &dy))
            / (2.0 * h);
        let expected = dot(&dx, &direction);
        let size = dot(&dx, &dx).sqrt().max(1e-3);
        assert!((slope - expected).abs() < 2e-3 * size, "{slope} {expected} of {size}");
    }
}

#[test]
fn rms_norm() {
    for level in SimdLevel::supported() {
        // A width of 37 is not a multiple of the vector length.
        let norm = RmsNorm::new(values(&random((1, 37), 5)), 1e-5, level);
        let x = random((3, 37), 1);
        let residual = random((3, 37), 2);
        let zero = residual.zeros_like().unwrap();
        check(&x, |x| norm.forward(x).unwrap(), |dy| norm.backward(&x, dy, Some(&zero)).unwrap());
        let dy = random((3, 37), 3);
        let with = norm.backward(&x, &dy, Some(&residual)).unwrap();
        let without = (norm.backward(&x, &dy, None).unwrap() + residual).unwrap();
        for (a, b) in values(&with).iter().zip(values(&without)) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn swiglu() {
    for level in SimdLevel::supported() {
        let op = SwiGlu { width: 21, level };
        let x = (random((4, 42), 1) * 4.0).unwrap();
        check(&x, |x| op.forward(x).unwrap(), |dy| op.backward(&x, dy).unwrap());
        // Large arguments neither overflow nor lose their sign.
        let far = Tensor::from_vec(vec![-200f32, 200.0, 1.0, 1.0], (1, 4), &Device::Cpu).unwrap();
        let h = values(&SwiGlu { width: 2, level }.forward(&far).unwrap());
        assert!(h[0].abs() < 1e-30 && (h[1] - 200.0).abs() < 1e-3, "{h:?}");
    }
}

#[test]
fn linear_with_and_without_quantisation() {
    for level in SimdLevel::supported() {
        let matrix = |n: usize, k: usize, seed| {
            let values = values(&random((n, k), seed));
            Arc::new(Matrix::dense_f32(&Arena::default(), n, k, &values).unwrap())
        };
        let bias = values(&random((1, 45), 9));
        let op = Linear::new(
            vec![(matrix(45, 70, 1), Some(bias)), (matrix(32, 70, 2), None)],
            level,
            Precision::F32,
        )
        .unwrap();
        for rows in [1, 5, 14] {
            let x = random((rows, 70), 3);
            let residual = random((rows, 77), 4);
            check(&x, |x| op.forward(x, Some(&residual)).unwrap(), |dy| op.backward(dy).unwrap());
        }
    }
}

#[test]
fn rope_backwards_is_its_transpose() {
    let heads = Heads { queries: 2, keys: 1, dim: 6, window: None };
    let angles: Vec<f32> = (0..30).map(|i| i as f32 * 0.37).collect();
    let table = Rotary {
        cos: angles.iter().map(|a| a.cos()).collect(),
        sin: angles.iter().map(|a| a.sin()).collect(),
        positions: 10,
    };
    let positions = [0, 3, 9];
    let apply = |x: &Tensor, inverse| {
        let x = x.copy().unwrap();
        let rope = Rope { heads, positions: &positions, table: &table, inverse };
        rope.apply(&x).unwrap();
        x
    };
    let x = random((3, 24), 1);
    check(&x, |x| apply(x, false), |dy| apply(dy, true));
    // Values are not rotated.
    let rotated = apply(&x, false).narrow(1, 18, 6).unwrap();
    assert_eq!(values(&rotated), values(&x.narrow(1, 18, 6).unwrap()));
}

/// Computes attention without optimisations.
fn plain_attention(heads: Heads, past: &[Vec<f32>], rows: &[Vec<f32>]) -> Vec<f32> {
    let all: Vec<&Vec<f32>> = past.iter().chain(rows).collect();
    let d = heads.dim;
    let mut out = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        for head in 0..heads.queries {
            let kv = head / (heads.queries / heads.keys);
            let visible = &all[..past.len() + i + 1];
            let visible = &visible[visible.len().saturating_sub(heads.window.unwrap_or(9999))..];
            let scores: Vec<f64> = visible
                .iter()
                .map(|other| {
                    let q = &row[head * d..(head + 1) * d];
                    let k = &other[heads.key_at() + kv * d..];
                    q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum::<f64>() / (d as f64).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for j in 0..d {
                let at = heads.value_at() + kv * d + j;
                let sum: f64 = weights.iter().zip(visible).map(|(w, v)| w * f64::from(v[at])).sum();
                out.push((sum / total) as f32);
            }
        }
    }
    out
}

#[test]
fn attention() {
    let heads = Heads { queries: 4, keys: 2, dim: 20, window: None };
    let stride = heads.stride();
    // The sequences are longer than a block of queries, within a panel, and single tokens.
    let starts = [0, 70, 71, 104];
    let x = (random((104, stride), 1) * 2.0).unwrap();
    let past = (random((37, stride), 2) * 2.0).unwrap();
    let mut block = KeyBlock::new(heads.keys, heads.dim, true);
    // Append in two parts, so that the block grows.
    block.append(&values(&past)[..stride], stride, heads.key_at(), heads.value_at());
    block.append(&values(&past)[stride..], stride, heads.key_at(), heads.value_at());
    assert_eq!(block.len(), 37);
    for level in SimdLevel::supported() {
        // Windows lie within a panel or span a whole one; the longest window covers all keys.
        let windows = [None, Some(1), Some(9), Some(40), Some(200)];
        for (shared, window) in
            [None, Some(&block)].into_iter().flat_map(|s| windows.map(|w| (s, w)))
        {
            let heads = Heads { window, ..heads };
            let op = Attention { heads, level, starts: &starts, shared };
            check(&x, |x| op.forward(x).unwrap(), |dy| op.backward(&x, dy).unwrap());
            let got = values(&op.forward(&x).unwrap());
            let rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
            let before: Vec<Vec<f32>> = match shared {
                Some(_) => past.to_vec2().unwrap(),
                None => Vec::new(),
            };
            let expected: Vec<f32> = starts
                .windows(2)
                .flat_map(|w| plain_attention(heads, &before, &rows[w[0]..w[1]]))
                .collect();
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}

#[test]
fn nan_is_propagated() {
    for level in SimdLevel::supported() {
        let op = SwiGlu { width: 16, level };
        let mut data = vec![0.5f32; 32];
        data[3] = f32::NAN;
        let x = Tensor::from_vec(data, (1, 32), &Device::Cpu).unwrap();
        assert!(values(&op.forward(&x).unwrap())[3].is_nan());
        let heads = Heads { queries: 1, keys: 1, dim: 16, window: None };
        let mut qkv = vec![0.1f32; 3 * 48];
        qkv[48 + 16] = f32::NAN;
        let x = Tensor::from_vec(qkv, (3, 48), &Device::Cpu).unwrap();
        let op = Attention { heads, level, starts: &[0, 3], shared: None };
        let out = values(&op.forward(&x).unwrap());
        assert!(out[0].is_finite() && out[16].is_nan() && out[32].is_nan(), "{out:?}");
    }
}
