//! Adam with a state that can be saved, gradient clipping, the learning-rate schedule, and the
//! moving average of the weights.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use glta_projector::Parameters;

use crate::config::TrainConfig;
use crate::{Error, Result};

/// Tensors by parameter name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The Adam optimiser of one stage.
pub(crate) struct Adam {
    first: Tensors,
    second: Tensors,
}

impl Adam {
    pub(crate) fn new(parameters: &Parameters) -> Result<Self> {
        let zeros = || -> Result<Tensors> {
            parameters.iter().map(|(n, v)| Ok((n.clone(), v.zeros_like()?))).collect()
        };
        Ok(Self { first: zeros()?, second: zeros()? })
    }

    pub(crate) fn from_state(first: Tensors, second: Tensors) -> Self {
        Self { first, second }
    }

    /// Returns the first and second moments by parameter name.
    pub(crate) fn state(&self) -> (&Tensors, &Tensors) {
        (&self.first, &self.second)
    }

    /// Updates the parameters once (Kingma & Ba 2015). `step` counts from 1.
    pub(crate) fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Tensors,
        learning_rate: f64,
        step: u64,
    ) -> Result<()> {
        let correct1 = 1.0 - BETA1.powf(step as f64);
        let correct2 = 1.0 - BETA2.powf(step as f64);
        for (name, var) in parameters {
            let (Some(g), Some(m), Some(v)) =
                (gradients.get(name), self.first.get_mut(name), self.second.get_mut(name))
            else {
                return Err(Error::Internal("a parameter has no gradient or no moments"));
            };
            *m = ((&*m * BETA1)? + (g * (1.0 - BETA1))?)?;
            *v = ((&*v * BETA2)? + (g.sqr()? * (1.0 - BETA2))?)?;
            let denominator = ((&*v / correct2)?.sqrt()? + EPSILON)?;
            let update = ((&*m / correct1)? / denominator)?;
            var.set(&(var.as_tensor() - (update * learning_rate)?)?)?;
        }
        Ok(())
    }
}

/// Returns the gradients of all parameters.
///
/// # Errors
/// Returns an error if a parameter has no gradient.
pub(crate) fn gradients(
    parameters: &Parameters,
    store: &GradStore,
    stage: &'static str,
) -> Result<Tensors> {
    let mut gradients = Tensors::new();
    for (name, var) in parameters {
        let Some(gradient) = store.get(var) else {
            return Err(Error::NoGradient { parameter: name.clone(), stage });
        };
        gradients.insert(name.clone(), gradient.detach());
    }
    Ok(gradients)
}

/// Loss and gradients of a batch, still on the device.
pub(crate) struct Whole {
    /// The loss in f64. With several ranks, also the number of ranks that have a gradient, for each
    /// parameter.
    pub(crate) head: Tensor,
    pub(crate) gradients: Tensors,
}

impl Whole {
    /// Reads the loss, and scales the gradients down together to `clip_norm`. This is the only time
    /// that a step waits for the device.
    ///
    /// # Errors
    /// Returns an error if a parameter has no gradient on any rank, or if the loss or a gradient is
    /// not finite.
    pub(crate) fn clipped(
        self,
        clip_norm: f64,
        stage: &'static str,
        step: u64,
    ) -> Result<(f64, Tensors)> {
        let Self { head, mut gradients } = self;
        let mut values = vec![head.clone()];
        for gradient in gradients.values() {
            values.push(gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?.reshape(1)?);
        }
        let values: Vec<f64> = Tensor::cat(&values, 0)?.to_vec1()?;
        tracing::trace!("waited for the device");
        let (head, squares) = values.split_at(head.elem_count());
        if let Some((parameter, _)) =
            gradients.keys().zip(&head[1..]).find(|(_, ranks)| **ranks == 0.0)
        {
            return Err(Error::NoGradient { parameter: parameter.clone(), stage });
        }
        let loss = head[0];
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: format!("the loss ({loss})"), stage, step });
        }
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "the gradient".into(), stage, step });
        }
        if norm > clip_norm {
            for gradient in gradients.values_mut() {
                *gradient = (&*gradient * (clip_norm / norm))?;
            }
        }
        Ok((loss, gradients))
    }
}

/// Returns the learning rate of a step: a linear warm-up, then a half cosine down to `final_ratio`.
/// `step` counts from 1.
pub(crate) fn learning_rate(config: &TrainConfig, step: u64, total: u64) -> f64 {
    let warmup = config.warmup_steps as u64;
    let ratio = if step <= warmup {
        step as f64 / warmup as f64
    } else {
        let done = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
        let wave = 0.5 + 0.5 * (std::f64::consts::PI * done.min(1.0)).cos();
        config.final_ratio + (1.0 - config.final_ratio) * wave
    };
    config.learning_rate * ratio
}

/// Moves the average of the weights towards the current weights. The decay increases with the
/// steps, so that the first weights do not dominate a short run.
pub(crate) fn update_average(
    average: &mut Tensors,
    parameters: &Parameters,
    decay: f64,
    step: u64,
) -> Result<()> {
    let decay = decay.min((1.0 + step as f64) / (10.0 + step as f64));
    for (name, var) in parameters {
        let mean = average.get_mut(name).ok_or(Error::Internal("a parameter has no average"))?;
        *mean = ((&*mean * decay)? + (var.as_tensor() * (1.0 - decay))?)?.detach();
    }
    Ok(())
}

/// Returns copies of the current weights.
pub(crate) fn snapshot(parameters: &Parameters) -> Result<Tensors> {
    parameters.iter().map(|(n, v)| Ok((n.clone(), v.as_tensor().detach().copy()?))).collect()
}

/// Sets the weights to `values`.
pub(crate) fn restore(parameters: &Parameters, values: &Tensors) -> Result<()> {
    for (name, var) in parameters {
        var.set(values.get(name).ok_or(Error::Internal("a parameter has no value to restore"))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn one(value: f32) -> Parameters {
        let var = Var::new(&[value], &Device::Cpu).unwrap();
        Parameters::from([("x".to_owned(), var)])
    }

    fn value(parameters: &Parameters) -> f32 {
        parameters["x"].to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn adam_matches_the_published_update() {
        // The values are computed by hand: the first step moves by lr · sign(g).
        let parameters = one(1.0);
        let mut adam = Adam::new(&parameters).unwrap();
        let gradient =
            |g: f32| Tensors::from([("x".to_owned(), Tensor::new(&[g], &Device::Cpu).unwrap())]);
        adam.step(&parameters, &gradient(0.5), 0.1, 1).unwrap();
        assert!((value(&parameters) - 0.9).abs() < 1e-6);
        // m = .9·.05 + .1·(-1) = -.055, v = .999·.00025 + .001·1 = .00124975
        adam.step(&parameters, &gradient(-1.0), 0.1, 2).unwrap();
        let m = -0.055 / (1.0 - 0.81);
        let v: f64 = 0.001_249_75 / (1.0 - 0.998_001);
        let expected = 0.9 - 0.1 * m / v.sqrt();
        assert!((f64::from(value(&parameters)) - expected).abs() < 1e-5);
    }

    #[test]
    fn clipping_keeps_the_direction_and_missing_gradients_are_errors() {
        let x = Var::new(&[3f32, 4.0], &Device::Cpu).unwrap();
        let parameters = Parameters::from([("x".to_owned(), x.clone())]);
        let store = (x.sqr().unwrap().sum_all().unwrap() * 0.5).unwrap().backward().unwrap();
        let whole = |loss: f64| {
            let head = Tensor::new(&[loss], &Device::Cpu).unwrap();
            Whole { head, gradients: gradients(&parameters, &store, "test").unwrap() }
        };
        let (loss, clipped) = whole(2.5).clipped(1.0, "test", 1).unwrap();
        assert_eq!(loss, 2.5);
        let g = clipped["x"].to_vec1::<f32>().unwrap();
        assert!((g[0] - 0.6).abs() < 1e-6 && (g[1] - 0.8).abs() < 1e-6);

        let error = whole(f64::NAN).clipped(1.0, "test", 1).unwrap_err().to_string();
        assert!(error.contains("the loss (NaN)"), "{error}");
        let mut infinite = whole(1.0);
        infinite.gradients.insert("x".into(), Tensor::new(&[f32::MAX], &Device::Cpu).unwrap());
        let error = infinite.clipped(1.0, "test", 1).unwrap_err().to_string();
        assert!(error.contains("the gradient"), "{error}");

        let other =
            Parameters::from([("y".to_owned(), Var::zeros(1, DType::F32, &Device::Cpu).unwrap())]);
        let error = gradients(&other, &store, "user").unwrap_err();
        assert!(error.to_string().contains("no gradient reached y in the user stage"));
    }

    #[test]
    fn schedule_warms_up_and_decays() {
        let config = TrainConfig {
            learning_rate: 2.0,
            warmup_steps: 10,
            final_ratio: 0.1,
            ..TrainConfig::default()
        };
        assert!((learning_rate(&config, 5, 110) - 1.0).abs() < 1e-12);
        assert!((learning_rate(&config, 10, 110) - 2.0).abs() < 1e-12);
        assert!((learning_rate(&config, 60, 110) - 1.1).abs() < 1e-12);
        assert!((learning_rate(&config, 110, 110) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn average_follows_the_weights() {
        let parameters = one(1.0);
        let mut average = snapshot(&parameters).unwrap();
        parameters["x"].set(&Tensor::new(&[2f32], &Device::Cpu).unwrap()).unwrap();
        update_average(&mut average, &parameters, 0.9, 1_000_000).unwrap();
        assert!((average["x"].to_vec1::<f32>().unwrap()[0] - 1.1).abs() < 1e-6);
        restore(&parameters, &average).unwrap();
        assert!((value(&parameters) - 1.1).abs() < 1e-6);
    }
}
