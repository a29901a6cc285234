use candle_core::{DType, Device, Shape, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::Result;

/// Creates a trainable f32 tensor drawn from `N(0, std²)`. The same seed draws the same values on
/// every device.
///
/// # Errors
/// Returns an error if the device is out of memory.
pub fn normal_var(shape: impl Into<Shape>, std: f64, seed: u64, device: &Device) -> Result<Var> {
    let shape = shape.into();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.elem_count())
        .map(|_| {
            let z: f64 = StandardNormal.sample(&mut rng);
            (std * z) as f32
        })
        .collect();
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?)
}

/// Creates the values of [`normal_var`] as an f64 parameter. Parameters that all examples of a
/// batch share are f64, so that the sum of their gradients does not depend on how a batch is
/// divided among ranks.
///
/// # Errors
/// Returns an error if the device is out of memory.
pub fn normal_parameter(
    shape: impl Into<Shape>,
    std: f64,
    seed: u64,
    device: &Device,
) -> Result<Var> {
    let values = normal_var(shape, std, seed, device)?;
    Ok(Var::from_tensor(&values.to_dtype(DType::F64)?)?)
}
