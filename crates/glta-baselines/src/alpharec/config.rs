use serde::{Deserialize, Serialize};

use crate::Result;
use crate::checks::{at_least_one, positive};

const SYSTEM: &str = "AlphaRec";

/// Settings of [`AlphaRec`](super::AlphaRec). The defaults are those of the authors, except the
/// length of the training and the negatives, which a whole batch shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlphaRecConfig {
    /// Columns of the representations. Default 64.
    pub dim: usize,
    /// Number of propagation layers; the representations are the mean over them and layer 0.
    /// Default 2.
    pub layers: usize,
    /// The loss divides cosines by it. Default 0.15.
    pub temperature: f64,
    /// Maximum number of negative items per batch. They are drawn without replacement and shared;
    /// those that a user has do not count for that user. Default 256.
    pub negatives: usize,
    /// Adam's learning rate. Default 5e-4.
    pub learning_rate: f64,
    /// Interactions per step. Default 4096.
    pub batch_size: usize,
    /// Number of epochs; an epoch draws as many interactions as there are. Default 500.
    pub epochs: usize,
    /// Epochs between evaluations on the validation data. Default 5.
    pub eval_every: usize,
    /// Number of evaluations without a better N@10 after which training stops. Default 5.
    pub patience: usize,
    /// Seed of initial values and samples. Default 2024.
    pub seed: u64,
}

impl Default for AlphaRecConfig {
    fn default() -> Self {
        Self {
            dim: 64,
            layers: 2,
            temperature: 0.15,
            negatives: 256,
            learning_rate: 5e-4,
            batch_size: 4096,
            epochs: 500,
            eval_every: 5,
            patience: 5,
            seed: 2024,
        }
    }
}

impl AlphaRecConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a size of 0 or an invalid number.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("dim", self.dim),
            ("negatives", self.negatives),
            ("batch_size", self.batch_size),
            ("epochs", self.epochs),
            ("eval_every", self.eval_every),
            ("patience", self.patience),
        ];
        at_least_one(SYSTEM, &sizes)?;
        let rates = [("temperature", self.temperature), ("learning_rate", self.learning_rate)];
        positive(SYSTEM, &rates)
    }
}
