use candle_core::{DType, Device, Shape, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::Result;

/// A trainable f32 tensor drawn from `N(0, std²)`; the same seed gives the same
/// values on every device.
///
/// # Errors
/// The device is out of memory.
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

/// The values of [`normal_var`] in f64, as what all examples of a batch have in common
/// is trained: their gradients are then added up so exactly that the sum does not
/// depend on how the batch is divided among ranks.
///
/// # Errors
/// The device is out of memory.
pub fn normal_parameter(
    shape: impl Into<Shape>,
    std: f64,
    seed: u64,
    device: &Device,
) -> Result<Var> {
    let values = normal_var(shape, std, seed, device)?;
    Ok(Var::from_tensor(&values.to_dtype(DType::F64)?)?)
}
