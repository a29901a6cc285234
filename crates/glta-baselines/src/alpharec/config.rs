use serde::{Deserialize, Serialize};

use crate::Result;
use crate::checks::{at_least_one, positive};

const SYSTEM: &str = "AlphaRec";

/// Settings of [`AlphaRec`](super::AlphaRec). The defaults are those of the authors, except the
/// number of epochs and the negatives, which all users of a batch share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlphaRecConfig {
    /// Number of columns of the representations. Default 64.
    pub dim: usize,
    /// Number of propagation layers. A representation is the mean of the outputs of layer 0 and
    /// these layers. Default 2.
    pub layers: usize,
    /// Temperature of the loss, by which the cosines are divided. Default 0.15.
    pub temperature: f64,
    /// Maximum number of negative items per batch. Each batch draws them without replacement, and
    /// all its users share them. For each user, the loss ignores negatives that are items of this
    /// user. Default 256.
    pub negatives: usize,
    /// Adam's learning rate. Default 5e-4.
    pub learning_rate: f64,
    /// Number of interactions per step. Default 4096.
    pub batch_size: usize,
    /// Number of epochs. An epoch draws as many interactions as the training data contain. Default
    /// 500.
    pub epochs: usize,
    /// Number of epochs between evaluations on the validation data. Default 5.
    pub eval_every: usize,
    /// Number of evaluations without a better N@10 after which training stops. Default 5.
    pub patience: usize,
    /// Seed of the initial values and the samples. Default 2024.
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
    /// Checks that all settings are valid.
    ///
    /// # Errors
    /// Returns [`Error::Config`](crate::Error::Config) if a size is 0, or if the temperature or the
    /// learning rate is not a positive number.
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
