//! Conversions of random numbers, ids and text vectors to tensors.

use candle_core::{Device, Result, Tensor, Var};
use ndarray::{Array2, ArrayView2};
use rand::distr::Distribution;
use rand_chacha::ChaCha8Rng;

use crate::Error;

/// Draws a `(rows, columns)` matrix from a Gaussian with mean 0.
pub(crate) fn normal(rng: &mut ChaCha8Rng, rows: usize, columns: usize, std: f64) -> Result<Var> {
    let normal = rand_distr::Normal::new(0.0, std as f32).map_err(candle_core::Error::wrap)?;
    let values: Vec<f32> = (0..rows * columns).map(|_| normal.sample(rng)).collect();
    Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
}

/// Draws a Gaussian matrix with Glorot's standard deviation.
pub(crate) fn xavier(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Result<Var> {
    normal(rng, rows, columns, (2.0 / (rows + columns) as f64).sqrt())
}

/// Returns a tensor of the ids, each plus `offset`.
pub(crate) fn index(ids: &[u32], offset: usize) -> Result<Tensor> {
    let ids: Vec<u32> = ids.iter().map(|&i| i + offset as u32).collect();
    let n = ids.len();
    Tensor::from_vec(ids, n, &Device::Cpu)
}

/// Converts a matrix to a tensor.
pub(crate) fn matrix(values: Array2<f32>) -> Result<Tensor> {
    let dims = values.dim();
    let values = values.as_standard_layout().into_owned().into_raw_vec_and_offset().0;
    Tensor::from_vec(values, dims, &Device::Cpu)
}

/// Rejects text vectors if their number differs from `nodes` or a value is not finite. `side` is
/// `users` or `items`.
pub(crate) fn check_vectors(
    vectors: ArrayView2<'_, f32>,
    side: &str,
    nodes: usize,
) -> crate::Result<()> {
    let rows = vectors.nrows();
    if rows != nodes {
        return Err(Error::TextVectors(format!("there are {rows} for {nodes} {side}")));
    }
    if vectors.iter().any(|v| !v.is_finite()) {
        return Err(Error::TextVectors(format!("some of the {side} are not finite")));
    }
    Ok(())
}
