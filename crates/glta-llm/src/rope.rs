use crate::config::{LlamaConfig, RopeScaling};
use crate::cuda::Accelerator;
use crate::error::Result;
use candle_core::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

/// Cosines and sines of the rotary embedding, `(positions, head_dim / 2)`.
#[derive(Debug)]
pub(crate) struct RopeTable {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    /// Both on the device of the model, where that is not the CPU.
    pub(crate) device: Option<(Tensor, Tensor)>,
}

/// The rotary embedding's frequencies, and a table that grows on demand.
#[derive(Debug)]
pub(crate) struct RopeCache {
    inverse_frequencies: Vec<f32>,
    accelerator: Option<Accelerator>,
    table: Mutex<Arc<RopeTable>>,
}

impl RopeCache {
    pub(crate) fn new(config: &LlamaConfig, accelerator: Option<&Accelerator>) -> Self {
        let empty = RopeTable { cos: Vec::new(), sin: Vec::new(), device: None };
        Self {
            inverse_frequencies: inverse_frequencies(config),
            accelerator: accelerator.cloned(),
            table: Mutex::new(Arc::new(empty)),
        }
    }

    /// A table for at least the positions `0..positions`.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(crate) fn table(&self, positions: usize) -> Result<Arc<RopeTable>> {
        let half = self.inverse_frequencies.len();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.cos.len() < positions * half {
            let positions = positions.next_power_of_two().max(64);
            // Angles are rounded to f32 before the cosine, as in the
            // implementations the checkpoints were trained with.
            let angles = (0..positions)
                .flat_map(|p| self.inverse_frequencies.iter().map(move |f| p as f32 * f));
            let cos: Vec<f32> = angles.clone().map(f32::cos).collect();
            let sin: Vec<f32> = angles.map(f32::sin).collect();
            let upload = |values: &[f32], accelerator: &Accelerator| {
                Tensor::from_slice(values, (positions, half), &accelerator.device)
            };
            let device = match &self.accelerator {
                None => None,
                Some(a) => {
                    let both = (upload(&cos, a)?, upload(&sin, a)?);
                    // It is used from other threads, and their queues, too.
                    a.device.synchronize()?;
                    Some(both)
                }
            };
            *table = Arc::new(RopeTable { cos, sin, device });
        }
        Ok(Arc::clone(&table))
    }
}

/// Radians per position of every rotated pair, `(head_dim / 2,)`.
fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    (0..config.head_dim / 2)
        .map(|i| {
            // Rounded to f32 step by step, as in the implementations that the
            // checkpoints were trained with: at position 1000 a last digit of a
            // frequency is already 1e-4 of an angle.
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            let power = config.rope_theta.powf(f64::from(exponent)) as f32;
            let frequency = f64::from(1.0 / power);
            let scaled = match config.rope_scaling {
                None => frequency,
                Some(RopeScaling::Linear { factor }) => frequency / factor,
                Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings,
                }) => {
                    // Long wavelengths are slowed down, short ones kept, and
                    // those between blended.
                    let context = original_max_position_embeddings as f64;
                    let wavelength = std::f64::consts::TAU / frequency;
                    if wavelength > context / low_freq_factor {
                        frequency / factor
                    } else if wavelength < context / high_freq_factor {
                        frequency
                    } else {
                        let smooth = (context / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                }
            };
            scaled as f32
        })
        .collect()
}
