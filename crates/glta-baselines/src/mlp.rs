use candle_core::{Device, Result, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::ops::{leaky, times_fixed};
use crate::tensors::xavier;

/// Slope of the leaky ReLU for negative values, PyTorch's default.
const SLOPE: f64 = 0.01;

/// An MLP of two linear layers with a leaky ReLU between them. Weights are `(in, out)`, biases `(1,
/// out)`.
pub(crate) struct Mlp([(Var, Var); 2]);

impl Mlp {
    /// Creates random layers: the first from `from` to `middle` columns, the second from `middle`
    /// to `to`.
    pub(crate) fn new(rng: &mut ChaCha8Rng, from: usize, middle: usize, to: usize) -> Result<Self> {
        let mut layer = |rows: usize, columns| -> Result<(Var, Var)> {
            // Biases are random, as in PyTorch. With zero biases the output of a row of zeros would
            // stay zero, and its cosine would be undefined.
            let bound = 1.0 / (rows as f32).sqrt();
            let bias: Vec<f32> = (0..columns).map(|_| rng.random_range(-bound..bound)).collect();
            let bias = Tensor::from_vec(bias, (1, columns), &Device::Cpu)?;
            Ok((xavier(rng, rows, columns)?, Var::from_tensor(&bias)?))
        };
        Ok(Self([layer(from, middle)?, layer(middle, to)?]))
    }

    /// Returns weight and bias of the first layer, then of the second.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = Var> {
        self.0.iter().flat_map(|(weight, bias)| [weight.clone(), bias.clone()])
    }

    /// Computes the output for rows `x (n, in)`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.after_first(&x.matmul(&self.0[0].0)?)
    }

    /// Computes the output like [`apply`](Self::apply), but without the gradient of `x`, which
    /// would be a third of the work of the first layer. Call this only for rows `x` that are not
    /// trained.
    pub(crate) fn apply_fixed(&self, x: &Tensor) -> Result<Tensor> {
        self.after_first(&times_fixed(x, &self.0[0].0)?)
    }

    fn after_first(&self, product: &Tensor) -> Result<Tensor> {
        let [(_, first_bias), (second, second_bias)] = &self.0;
        let middle = leaky(&product.broadcast_add(first_bias)?, SLOPE)?;
        middle.matmul(second)?.broadcast_add(second_bias)
    }
}
