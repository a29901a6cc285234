//! Tensors from random numbers and ids.

use candle_core::{Device, Result, Tensor, Var};
use rand::distr::Distribution;
use rand_chacha::ChaCha8Rng;

/// A normal matrix of mean 0.
pub(super) fn normal(rng: &mut ChaCha8Rng, rows: usize, columns: usize, std: f64) -> Result<Var> {
    let normal = rand_distr::Normal::new(0.0, std as f32).map_err(candle_core::Error::wrap)?;
    let values: Vec<f32> = (0..rows * columns).map(|_| normal.sample(rng)).collect();
    Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
}

/// A normal matrix with Glorot's standard deviation.
pub(super) fn xavier(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Result<Var> {
    normal(rng, rows, columns, (2.0 / (rows + columns) as f64).sqrt())
}

/// The ids, each plus `offset`.
pub(super) fn index(ids: &[u32], offset: usize) -> Result<Tensor> {
    let ids: Vec<u32> = ids.iter().map(|&i| i + offset as u32).collect();
    let n = ids.len();
    Tensor::from_vec(ids, n, &Device::Cpu)
}
