//! The training loop that all models of this crate share.

use candle_core::{Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use glta_core::{Progress, report};
use glta_data::Interactions;
use glta_graph::NodeEmbeddings;
use glta_metrics::{EvaluationConfig, Metric, evaluate};

use crate::{Error, Result};

/// Embeddings and history of a trained model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TrainedContrastive {
    /// Embeddings of the best epoch. Their inner products are the scores.
    pub embeddings: NodeEmbeddings,
    /// Reports of all epochs, in order.
    pub history: Vec<ContrastiveEpoch>,
    /// Number of the epoch that the embeddings are from, counted from 1.
    pub best_epoch: usize,
}

impl TrainedContrastive {
    /// Returns N@10 of the best epoch on the validation data. Returns `None` if no epoch was
    /// evaluated.
    pub fn best_validation(&self) -> Option<f64> {
        self.history.get(self.best_epoch.checked_sub(1)?)?.validation
    }
}

/// Loss and validation result of one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ContrastiveEpoch {
    /// Number of the epoch, counted from 1.
    pub epoch: usize,
    /// Mean loss over the steps of the epoch.
    pub loss: f64,
    /// N@10 on the validation data; `None` if the epoch was not evaluated.
    pub validation: Option<f64>,
}

/// A model that [`fit`] can train.
pub(crate) trait Trainable {
    fn parameters(&self) -> Vec<Var>;

    /// Computes the loss of the batch of a step. The batch depends only on the number of the step.
    fn loss(&self, step: u64) -> Result<Tensor>;

    /// Returns the current embeddings, from which scores are computed.
    fn embeddings(&self) -> Result<NodeEmbeddings>;
}

/// Learning rate, length and early stopping of a training run.
pub(crate) struct Schedule {
    pub(crate) learning_rate: f64,
    pub(crate) epochs: usize,
    /// Number of steps per epoch.
    pub(crate) steps: usize,
    pub(crate) eval_every: usize,
    pub(crate) patience: usize,
}

/// Minimises the loss with Adam. With validation data, training can stop early, and the result has
/// the embeddings of the best epoch.
pub(crate) fn fit(
    model: &dyn Trainable,
    schedule: &Schedule,
    train: &Interactions,
    valid: Option<&Interactions>,
    progress: &mut dyn Progress<ContrastiveEpoch>,
) -> Result<TrainedContrastive> {
    let steps = schedule.steps;
    let parameters = model.parameters();
    // Baselines are not resumed, so the state of the optimiser is never saved. The optimiser of
    // `glta-align` can be resumed.
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

/// Returns an error if a tensor has no gradient, because it would silently stay untrained.
fn check(parameters: &[Var], gradients: &candle_core::backprop::GradStore) -> Result<()> {
    if parameters.iter().all(|p| gradients.get(p).is_some()) {
        return Ok(());
    }
    Err(Error::NoGradient)
}
