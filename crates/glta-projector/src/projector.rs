use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};

use crate::{Error, Result, normal_parameter};

/// Trained tensors, sorted by name.
pub type Parameters = BTreeMap<String, Var>;

/// Linear map from node embeddings to soft tokens, `V = E Wᵀ + b` (equations 1 and 2 of the paper),
/// with `E: (n, d)`, `W: (hidden, d)` and `b: (hidden)`.
///
/// The weights are f64 ([`normal_parameter`]).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use glta_projector::Projector;
///
/// let projector = Projector::new(4, 8, 0.1, 7, &Device::Cpu)?;
/// let nodes = Tensor::ones((3, 4), DType::F32, &Device::Cpu)?;
/// assert_eq!(projector.forward(&nodes)?.dims(), [3, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Projector {
    weight: Var,
    bias: Var,
}

impl Projector {
    /// Creates a projector from nodes `(n, d)` to soft tokens `(n, hidden)`.
    ///
    /// Nodes with a root mean square of one become soft tokens with a root mean square of about
    /// `token_rms`. Set `token_rms` to the root mean square of the language model's token
    /// embeddings, so that the first layers stay in the range they were trained for.
    ///
    /// # Errors
    /// Returns an error if a size is zero, or if `token_rms` is not positive.
    pub fn new(
        d: usize,
        hidden: usize,
        token_rms: f64,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        for (what, value) in [("the node dimension", d), ("the hidden size", hidden)] {
            if value == 0 {
                return Err(Error::NotPositive { what, value: 0.0 });
            }
        }
        if token_rms.is_nan() || token_rms <= 0.0 {
            return Err(Error::NotPositive { what: "token_rms", value: token_rms });
        }
        Ok(Self {
            weight: normal_parameter((hidden, d), token_rms / (d as f64).sqrt(), seed, device)?,
            bias: Var::zeros(hidden, DType::F64, device)?,
        })
    }

    /// Maps nodes `(n, d)` to soft tokens `(n, hidden)` of the same dtype. The result is
    /// differentiable with respect to the weights and the nodes.
    ///
    /// # Errors
    /// Returns [`Error::NodeShape`] if the nodes are not `(n, d)`.
    pub fn forward(&self, nodes: &Tensor) -> Result<Tensor> {
        let (_, d) = self.weight.dims2()?;
        if nodes.dims().len() != 2 || nodes.dims()[1] != d {
            return Err(Error::NodeShape { expected: d, got: nodes.dims().to_vec() });
        }
        let tokens = nodes.to_dtype(DType::F64)?.matmul(&self.weight.t()?)?;
        Ok(tokens.broadcast_add(&self.bias)?.to_dtype(nodes.dtype())?)
    }

    /// Adds the trained tensors to `parameters` as `{name}.weight` and `{name}.bias`.
    pub fn collect(&self, name: &str, parameters: &mut Parameters) {
        parameters.insert(format!("{name}.weight"), self.weight.clone());
        parameters.insert(format!("{name}.bias"), self.bias.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_formula_and_passes_gradients() {
        let device = Device::Cpu;
        let projector = Projector::new(3, 5, 0.2, 1, &device).unwrap();
        let nodes = Tensor::new(&[[1f32, -2.0, 0.5], [0.0, 3.0, 1.0]], &device).unwrap();
        let out = projector.forward(&nodes).unwrap();
        let w: Vec<Vec<f64>> = projector.weight.to_vec2().unwrap();
        let expected = w[4][0] * 1.0 - 2.0 * w[4][1] + 0.5 * w[4][2];
        let got = out.to_vec2::<f32>().unwrap()[0][4];
        assert!((f64::from(got) - expected).abs() < 1e-7);

        let grads = out.sum_all().unwrap().backward().unwrap();
        let gw = grads.get(&projector.weight).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(gw[0], [1.0, 1.0, 1.5]);
        let gb = grads.get(&projector.bias).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(gb, [2.0; 5]);
    }

    #[test]
    fn starts_at_the_requested_scale() {
        let projector = Projector::new(64, 512, 0.136, 3, &Device::Cpu).unwrap();
        let nodes = crate::normal_var((100, 64), 1.0, 4, &Device::Cpu).unwrap();
        let out = projector.forward(&nodes).unwrap();
        let rms = out.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        assert!((rms - 0.136).abs() < 0.01, "rms {rms}");
    }

    #[test]
    fn refuses_nodes_of_another_width() {
        let projector = Projector::new(3, 5, 0.2, 1, &Device::Cpu).unwrap();
        let nodes = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
        let message = projector.forward(&nodes).unwrap_err().to_string();
        assert!(message.contains("(n, 3)") && message.contains("[2, 4]"), "{message}");
        assert!(Projector::new(0, 5, 0.2, 1, &Device::Cpu).is_err());
        assert!(Projector::new(3, 5, f64::NAN, 1, &Device::Cpu).is_err());
    }
}
