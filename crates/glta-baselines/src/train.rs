//! The training loop of all models of this crate.

use candle_core::{Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use glta_core::{Progress, report};
use glta_data::Interactions;
use glta_graph::NodeEmbeddings;
use glta_metrics::{EvaluationConfig, Metric, evaluate};

use crate::{Error, Result};

/// Result of a training run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TrainedContrastive {
    /// Embeddings of the best epoch; their inner products are the scores.
    pub embeddings: NodeEmbeddings,
    /// All epochs in order.
    pub history: Vec<ContrastiveEpoch>,
    /// The epoch of the embeddings, from 1; 0 if no epoch ran.
    pub best_epoch: usize,
}

impl TrainedContrastive {
    /// N@10 of the best epoch on the validation data.
    pub fn best_validation(&self) -> Option<f64> {
        self.history.get(self.best_epoch.checked_sub(1)?)?.validation
    }
}

/// Report of one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ContrastiveEpoch {
    /// Number of epochs that have ended.
    pub epoch: usize,
    /// Mean loss of the epoch.
    pub loss: f64,
    /// N@10 on the validation data; `None` if the epoch was not evaluated.
    pub validation: Option<f64>,
}

/// What the loop trains.
pub(crate) trait Trainable {
    fn parameters(&self) -> Vec<Var>;

    /// The loss of a step's batch, which depends only on the number of the step.
    fn loss(&self, step: u64) -> Result<Tensor>;

    /// Embeddings to score with.
    fn embeddings(&self) -> Result<NodeEmbeddings>;
}

/// Length of the training.
pub(crate) struct Schedule {
    pub(crate) learning_rate: f64,
    pub(crate) epochs: usize,
    /// Steps per epoch.
    pub(crate) steps: usize,
    pub(crate) eval_every: usize,
    pub(crate) patience: usize,
}

/// Minimises the loss with Adam. With validation data training stops early, and the embeddings of
/// the best epoch are returned.
pub(crate) fn fit(
    model: &dyn Trainable,
    schedule: &Schedule,
    train: &Interactions,
    valid: Option<&Interactions>,
    progress: &mut dyn Progress<ContrastiveEpoch>,
) -> Result<TrainedContrastive> {
    let steps = schedule.steps;
    let parameters = model.parameters();
    // Its state is never saved, because a baseline is not resumed. The optimiser of `glta-align`
    // can be resumed.
    let mut optimizer = AdamW::new(
        parameters.clone(),
        ParamsAdamW { lr: schedule.learning_rate, weight_decay: 0.0, ..Default::default() },
    )?;
    let ranking = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let mut history: Vec<ContrastiveEpoch> = Vec::new();
    let mut best: Option<(f64, usize, NodeEmbeddings)> = None;
    let mut waited = 0;
    for epoch in 1..=schedule.epochs {
        let mut sum = 0.0;
        for step in 0..steps {
            let loss = model.loss(((epoch - 1) * steps + step) as u64)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            if !value.is_finite() {
                return Err(Error::NotFinite { epoch });
            }
            sum += value;
            let gradients = loss.backward()?;
            check(&parameters, &gradients)?;
            optimizer.step(&gradients)?;
        }
        let mut done = ContrastiveEpoch { epoch, loss: sum / steps as f64, validation: None };
        if let Some(valid) = valid.filter(|_| epoch % schedule.eval_every == 0) {
            let nodes = model.embeddings()?;
            let score = evaluate(&nodes.scorer(), valid, &[train], &ranking)?
                .get(Metric::Ndcg, 10)
                .unwrap_or_default();
            done.validation = Some(score);
            waited += 1;
            if best.as_ref().is_none_or(|(b, ..)| score > *b) {
                best = Some((score, epoch, nodes));
                waited = 0;
            }
        }
        history.push(done);
        report(progress, &done)?;
        if waited >= schedule.patience {
            break;
        }
    }
    let (best_epoch, embeddings) = match best {
        Some((_, epoch, nodes)) => (epoch, nodes),
        None => (history.len(), model.embeddings()?),
    };
    Ok(TrainedContrastive { embeddings, history, best_epoch })
}

/// Without this check a tensor without a gradient would silently stay untrained.
fn check(parameters: &[Var], gradients: &candle_core::backprop::GradStore) -> Result<()> {
    if parameters.iter().all(|p| gradients.get(p).is_some()) {
        return Ok(());
    }
    Err(Error::NoGradient)
}
