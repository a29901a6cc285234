//! Graph recommenders with contrastive losses: LightGCN+, HCCF, HCCF+, RLMRec.

mod config;
mod loss;
mod model;
mod ops;
mod propagate;
mod sampler;
mod tensors;
mod texts;

pub use config::ContrastiveConfig;

use candle_core::Var;
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use glta_core::{Progress, Silent, report};
use glta_data::Interactions;
use glta_graph::{Adjacency, NodeEmbeddings};
use glta_metrics::{EvaluationConfig, Metric, evaluate};
use ndarray::ArrayView2;

use crate::{Error, Result};
use model::Model;
use sampler::Sampler;

/// Text vectors that nodes are contrasted with. A row of zeros means that the node has no text.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeTexts<'a> {
    /// `(users, text dim)`, such as vectors of profiles.
    pub users: Option<ArrayView2<'a, f32>>,
    /// `(items, text dim)`, such as vectors of descriptions.
    pub items: Option<ArrayView2<'a, f32>>,
}

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

/// Trains LightGCN or HCCF with BPR and, depending on the settings, two InfoNCE losses: between
/// graph and hypergraph (HCCF, Xia et al. 2022, eq. 7), and between nodes and texts (Ren et al.
/// 2024: the contrastive or generative alignment of RLMRec; the GLTA paper's LightGCN+ and HCCF+).
///
/// ```
/// use glta_baselines::{Contrastive, ContrastiveConfig, NodeTexts};
/// use glta_data::Interactions;
/// use glta_metrics::top_k;
/// use ndarray::Array2;
///
/// // Two groups of users with different tastes, and texts that separate the groups.
/// let pairs = (0..20u32).flat_map(|u| (0..4u32).map(move |k| (u, 5 * (u % 2) + (u + k) % 5)));
/// let train = Interactions::from_pairs(20, 10, pairs)?;
/// let texts = Array2::from_shape_fn((10, 4), |(i, c)| (i / 5 * 2 + i % 2 * c) as f32);
///
/// let config = ContrastiveConfig { dim: 8, epochs: 60, ..ContrastiveConfig::hccf_plus() };
/// let texts = NodeTexts { items: Some(texts.view()), ..NodeTexts::default() };
/// let model = Contrastive::new(config)?;
/// let trained = model.train(&train, None, texts)?;
/// let best = top_k(&trained.embeddings.scorer(), &[0], &[&train], 1)?;
/// assert_eq!(best[0][0].item, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Contrastive {
    config: ContrastiveConfig,
}

impl Contrastive {
    /// # Errors
    /// [`Error::Config`], see [`ContrastiveConfig::validate`].
    pub fn new(config: ContrastiveConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Trains on `train`. With validation data training stops early, and the embeddings of the best
    /// epoch are returned.
    ///
    /// # Errors
    /// There is nothing to train on, the texts or validation data have another number of nodes, or
    /// the loss is not finite.
    pub fn train(
        &self,
        train: &Interactions,
        valid: Option<&Interactions>,
        texts: NodeTexts,
    ) -> Result<TrainedContrastive> {
        self.train_with(train, valid, texts, &mut Silent)
    }

    /// [`train`](Self::train) with a progress receiver for each epoch.
    ///
    /// # Errors
    /// Those of [`train`](Self::train), and [`Error::Cancelled`].
    pub fn train_with(
        &self,
        train: &Interactions,
        valid: Option<&Interactions>,
        texts: NodeTexts,
        progress: &mut dyn Progress<ContrastiveEpoch>,
    ) -> Result<TrainedContrastive> {
        let config = &self.config;
        for (side, vectors, nodes) in
            [("users", texts.users, train.n_users()), ("items", texts.items, train.n_items())]
        {
            let Some(vectors) = vectors else { continue };
            if vectors.nrows() != nodes {
                return Err(Error::TextVectors(format!(
                    "there are {} for {nodes} {side}",
                    vectors.nrows()
                )));
            }
            if vectors.iter().any(|v| !v.is_finite()) {
                return Err(Error::TextVectors(format!("some of the {side} are not finite")));
            }
        }
        let sampler = Sampler::new(train, config.seed, config.mask);
        if sampler.len() == 0 {
            return Err(Error::NothingToTrain);
        }
        let model = Model::new(config, Adjacency::new(train)?, texts.users, texts.items)?;
        let parameters = model.parameters();
        // Its state is never saved, because a baseline is not resumed. The optimiser of
        // `glta-align` can be resumed.
        let mut optimizer = AdamW::new(
            parameters.clone(),
            ParamsAdamW { lr: config.learning_rate, weight_decay: 0.0, ..Default::default() },
        )?;
        let steps = sampler.len().div_ceil(config.batch_size);
        let ranking = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
        let mut history: Vec<ContrastiveEpoch> = Vec::new();
        let mut best: Option<(f64, usize, NodeEmbeddings)> = None;
        let mut waited = 0;
        for epoch in 1..=config.epochs {
            let mut sum = 0.0;
            for step in 0..steps {
                let number = ((epoch - 1) * steps + step) as u64;
                let size = config.batch_size.min(sampler.len());
                let loss = model.loss(&sampler.draw(number, size), true)?;
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
            if let Some(valid) = valid.filter(|_| epoch % config.eval_every == 0) {
                let nodes = nodes(&model)?;
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
            if waited >= config.patience {
                break;
            }
        }
        let (best_epoch, embeddings) = match best {
            Some((_, epoch, nodes)) => (epoch, nodes),
            None => (history.len(), nodes(&model)?),
        };
        Ok(TrainedContrastive { embeddings, history, best_epoch })
    }
}

/// Without this check a tensor without a gradient would silently stay untrained.
fn check(parameters: &[Var], gradients: &candle_core::backprop::GradStore) -> Result<()> {
    if parameters.iter().all(|p| gradients.get(p).is_some()) {
        return Ok(());
    }
    Err(Error::NoGradient)
}

fn nodes(model: &Model) -> Result<NodeEmbeddings> {
    let [users, items] = model.embeddings()?;
    Ok(NodeEmbeddings { users, items })
}

#[cfg(test)]
mod tests;
