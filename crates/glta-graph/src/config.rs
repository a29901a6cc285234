use glta_metrics::Metric;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of [`LightGcn`](crate::LightGcn).
///
/// The defaults are those of the published implementation (He et al. 2020): 64 dimensions, 3
/// layers, batches of 2048, Adam at 1e-3, L2 1e-4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LightGcnConfig {
    /// Number of columns of the embeddings. Default 64.
    pub dim: usize,
    /// Number of propagation layers; 0 is matrix factorisation. Default 3.
    pub layers: usize,
    /// Learning rate of Adam. Default 1e-3.
    pub learning_rate: f32,
    /// Change of the learning rate over the run. Default constant.
    pub schedule: Schedule,
    /// L2 weight of the layer-0 embeddings of a batch's users and items: the loss contains `l2 · ½
    /// Σ (‖u‖² + ‖i‖² + ‖j‖²) / batch`. Default 1e-4.
    pub l2: f32,
    /// Number of triples per step. Default 2048.
    pub batch_size: usize,
    /// Number of epochs; an epoch draws as many triples as there are interactions. Default 1000.
    pub epochs: usize,
    /// Standard deviation of the initial embeddings. Default 0.1.
    pub init_std: f32,
    /// Seed of the initial embeddings and of the sampled triples. Default 2024.
    pub seed: u64,
    /// Distribution of the positive pairs. Default [`PositiveSampling::UniformUser`].
    pub positives: PositiveSampling,
    /// Number of epochs between evaluations on the validation data. Default 5.
    pub eval_every: usize,
    /// Number of evaluations without improvement after which training stops; 0 disables early
    /// stopping. Default 10.
    pub patience: usize,
    /// The metric that selects the best epoch. Default NDCG@10.
    pub selection: SelectionMetric,
    /// Whether to return the epoch that is best on the validation data (`true`, the default) or the
    /// last epoch.
    pub keep_best: bool,
}

impl Default for LightGcnConfig {
    fn default() -> Self {
        Self {
            dim: 64,
            layers: 3,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            l2: 1e-4,
            batch_size: 2048,
            epochs: 1000,
            init_std: 0.1,
            seed: 2024,
            positives: PositiveSampling::UniformUser,
            eval_every: 5,
            patience: 10,
            selection: SelectionMetric::default(),
            keep_best: true,
        }
    }
}

/// Distribution of the user and the positive item of a triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PositiveSampling {
    /// Draws a user uniformly, then one of the user's items. Every user has the same weight, as in
    /// the published implementation.
    UniformUser,
    /// Draws an interaction uniformly, so active users have more weight.
    Interaction,
}

/// Change of the learning rate over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// Keeps the configured rate.
    Constant,
    /// Follows a half cosine from the configured rate to `final_ratio` over all epochs.
    Cosine {
        /// Final rate as a fraction of the configured rate.
        final_ratio: f32,
    },
    /// Multiplies the rate by `factor` after every `every` epochs.
    Step {
        /// Number of epochs between changes.
        every: usize,
        /// The factor of each change.
        factor: f32,
    },
}

impl Schedule {
    /// Returns the fraction of the configured learning rate after `step` of `total` steps. An epoch
    /// consists of `per_epoch` steps.
    pub(crate) fn ratio(self, step: usize, total: usize, per_epoch: usize) -> f32 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { final_ratio } => {
                let done = step as f64 / total.max(1) as f64;
                let wave = 0.5 + 0.5 * (std::f64::consts::PI * done).cos();
                final_ratio + (1.0 - final_ratio) * wave as f32
            }
            Self::Step { every, factor } => {
                let changes = step / (per_epoch.max(1) * every.max(1));
                factor.powi(i32::try_from(changes).unwrap_or(i32::MAX))
            }
        }
    }
}

/// The metric and cut-off that select the best epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionMetric {
    /// The metric. Default NDCG.
    pub metric: Metric,
    /// Cut-off of the ranked lists. Default 10.
    pub k: usize,
}

impl Default for SelectionMetric {
    fn default() -> Self {
        Self { metric: Metric::Ndcg, k: 10 }
    }
}

impl LightGcnConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the name of the first invalid field.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("dim", self.dim),
            ("batch_size", self.batch_size),
            ("eval_every", self.eval_every),
            ("selection.k", self.selection.k),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(config(field, "must be at least 1".into()));
            }
        }
        let in_range = |field, value: f32, range: std::ops::RangeInclusive<f32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let (low, high) = (range.start(), range.end());
            Err(config(field, format!("{value} is not in {low}..={high}")))
        };
        in_range("learning_rate", self.learning_rate, 1e-12..=1e3)?;
        in_range("l2", self.l2, 0.0..=1e3)?;
        in_range("init_std", self.init_std, 0.0..=1e3)?;
        match self.schedule {
            Schedule::Constant => Ok(()),
            Schedule::Cosine { final_ratio } => {
                in_range("schedule.cosine.final_ratio", final_ratio, 0.0..=1.0)
            }
            Schedule::Step { every, factor } => {
                if every == 0 {
                    let problem = "must be at least 1".into();
                    return Err(config("schedule.step.every", problem));
                }
                in_range("schedule.step.factor", factor, 0.0..=1.0)
            }
        }
    }
}

fn config(field: &'static str, problem: String) -> Error {
    Error::Config { field, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bad_values_name_their_field() {
        assert!(LightGcnConfig::default().validate().is_ok());
        let check = |change: &dyn Fn(&mut LightGcnConfig), field: &str| {
            let mut config = LightGcnConfig::default();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        };
        check(&|c| c.dim = 0, "dim");
        check(&|c| c.learning_rate = f32::NAN, "learning_rate");
        check(&|c| c.l2 = -1.0, "l2");
        let schedule = |factor, every| Schedule::Step { every, factor };
        check(&|c| c.schedule = schedule(0.5, 0), "schedule.step.every");
        check(&|c| c.schedule = schedule(2.0, 1), "schedule.step.factor");
    }

    #[test]
    fn schedules_start_at_one_and_end_at_their_final_ratio() {
        let cosine = Schedule::Cosine { final_ratio: 0.1 };
        assert_eq!(cosine.ratio(0, 100, 10), 1.0);
        assert!((cosine.ratio(50, 100, 10) - 0.55).abs() < 1e-6);
        assert!((cosine.ratio(100, 100, 10) - 0.1).abs() < 1e-6);
        let step = Schedule::Step { every: 2, factor: 0.5 };
        assert_eq!(step.ratio(19, 100, 10), 1.0);
        assert_eq!(step.ratio(20, 100, 10), 0.5);
        assert_eq!(step.ratio(45, 100, 10), 0.25);
    }
}
