use std::sync::{Arc, Mutex, PoisonError};

use glta_kernels::Backend;

use crate::config::{LlamaConfig, RopeScaling};
use crate::error::Result;

/// The number of positions of a table, and the table.
type Table<B> = (usize, Arc<<B as Backend>::Rotary>);

/// The frequencies of the rotary embedding, and a table that grows on demand.
#[derive(Debug)]
pub(crate) struct RotaryCache<B: Backend> {
    inverse_frequencies: Vec<f32>,
    /// Factor of all cosines and sines, which is 1 except with YaRN.
    scale: f32,
    backend: B,
    table: Mutex<Option<Table<B>>>,
}

impl<B: Backend> RotaryCache<B> {
    pub(crate) fn new(config: &LlamaConfig, backend: &B) -> Self {
        Self {
            inverse_frequencies: inverse_frequencies(config),
            scale: match config.rope_scaling {
                Some(RopeScaling::Yarn { attention_factor, .. }) => attention_factor as f32,
                _ => 1.0,
            },
            backend: backend.clone(),
            table: Mutex::new(None),
        }
    }

    /// Returns a table with at least the positions `0..positions`.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub(crate) fn table(&self, positions: usize) -> Result<Arc<B::Rotary>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = table.as_ref().filter(|(there, _)| *there >= positions) {
            return Ok(Arc::clone(table));
        }
        let positions = positions.next_power_of_two().max(64);
        // Round angles to f32 before the cosine, as in the implementations that trained the
        // checkpoints.
        let angles =
            (0..positions).flat_map(|p| self.inverse_frequencies.iter().map(move |f| p as f32 * f));
        let scale = self.scale;
        let cos = angles.clone().map(|angle| angle.cos() * scale).collect();
        let sin = angles.map(|angle| angle.sin() * scale).collect();
        let new = Arc::new(self.backend.rotary(cos, sin, self.inverse_frequencies.len())?);
        // Other threads use the table on their own streams.
        self.backend.device().synchronize()?;
        *table = Some((positions, Arc::clone(&new)));
        Ok(new)
    }
}

/// Returns the frequency of every rotated pair in radians per position, `(head_dim / 2,)`.
fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    let ramp = yarn_ramp(config);
    (0..config.head_dim / 2)
        .map(|i| {
            // Round to f32 in each step, as in the implementations that trained the checkpoints. At
            // position 1000, the last digit of a frequency changes the angle by 1e-4.
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            let power = config.rope_theta.powf(f64::from(exponent)) as f32;
            let frequency = f64::from(1.0 / power);
            let scaled = match config.rope_scaling {
                // Dynamic scaling has no effect within the supported context.
                None | Some(RopeScaling::Dynamic { .. }) => frequency,
                Some(RopeScaling::Linear { factor }) => frequency / factor,
                Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings,
                }) => {
                    // Scale long wavelengths, keep short ones, and blend those between.
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
                Some(RopeScaling::Yarn { factor, .. }) => {
                    let kept = f64::from(1.0 - ramp[i]);
                    let divided = f64::from(1.0 / (factor as f32 * power));
                    divided * (1.0 - kept) + frequency * kept
                }
            };
            scaled as f32
        })
        .collect()
}

/// Returns, for each rotated pair, the weight of the divided frequency in YaRN's interpolation,
/// from 0 to 1; empty without YaRN.
fn yarn_ramp(config: &LlamaConfig) -> Vec<f32> {
    let Some(RopeScaling::Yarn {
        beta_fast,
        beta_slow,
        original_max_position_embeddings,
        truncate,
        ..
    }) = config.rope_scaling
    else {
        return Vec::new();
    };
    let dim = config.head_dim as f64;
    // Returns the pair with this number of rotations over the original context.
    let pair = |rotations: f64| {
        let turns = original_max_position_embeddings as f64 / (rotations * std::f64::consts::TAU);
        dim * turns.ln() / (2.0 * config.rope_theta.ln())
    };
    let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let place = |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
    (0..config.head_dim / 2).map(place).collect()
}
