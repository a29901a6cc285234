//! Graph recommenders with contrastive losses: LightGCN+, HCCF, HCCF+ and RLMRec.

mod config;
mod loss;
mod model;
mod sampler;
mod texts;

pub use config::ContrastiveConfig;

use candle_core::{Tensor, Var};
use glta_core::{Progress, Silent};
use glta_data::Interactions;
use glta_graph::{Adjacency, NodeEmbeddings};
use ndarray::ArrayView2;

use crate::tensors::check_vectors;
use crate::train::{ContrastiveEpoch, Schedule, Trainable, TrainedContrastive, fit};
use crate::{Error, Result};
use model::Model;
use sampler::Sampler;

/// Text vectors of the nodes, for the contrastive loss. A row of zeros means that the node has no
/// text.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeTexts<'a> {
    /// Text vectors of users, `(users, text dim)`, such as those of profiles.
    pub users: Option<ArrayView2<'a, f32>>,
    /// Text vectors of items, `(items, text dim)`, such as those of descriptions.
    pub items: Option<ArrayView2<'a, f32>>,
}

/// A trainer of LightGCN or HCCF with BPR and up to two contrastive (InfoNCE) losses. One is
/// between graph and hypergraph (HCCF, Xia et al. 2022, eq. 7). The other is between nodes and
/// texts: the contrastive or generative alignment of RLMRec (Ren et al. 2024), also used by
/// LightGCN+ and HCCF+ of the GLTA paper.
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
    /// Creates a trainer with the given settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if [`ContrastiveConfig::validate`] fails.
    pub fn new(config: ContrastiveConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Trains on `train`. With validation data, training can stop early, and the result has the
    /// embeddings of the best epoch.
    ///
    /// # Errors
    /// Returns an error if every user has no item or all items, if the numbers of users or items of
    /// the texts or the validation data differ from those of `train`, or if the loss is not finite.
    pub fn train(
        &self,
        train: &Interactions,
        valid: Option<&Interactions>,
        texts: NodeTexts,
    ) -> Result<TrainedContrastive> {
        self.train_with(train, valid, texts, &mut Silent)
    }

    /// Trains like [`train`](Self::train), and reports each epoch to `progress`.
    ///
    /// # Errors
    /// Returns the errors of [`train`](Self::train), and [`Error::Cancelled`] if `progress`
    /// cancels.
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
            check_vectors(vectors, side, nodes)?;
        }
        let sampler = Sampler::new(train, config.seed, config.mask);
        if sampler.len() == 0 {
            return Err(Error::NothingToTrain);
        }
        let model = Model::new(config, Adjacency::new(train)?, texts.users, texts.items)?;
        let schedule = Schedule {
            learning_rate: config.learning_rate,
            epochs: config.epochs,
            steps: sampler.len().div_ceil(config.batch_size),
            eval_every: config.eval_every,
            patience: config.patience,
        };
        let size = config.batch_size.min(sampler.len());
        fit(&Sampled { model, sampler, size }, &schedule, train, valid, progress)
    }
}

/// A model and the sampler of its batches.
struct Sampled<'a> {
    model: Model,
    sampler: Sampler<'a>,
    /// Number of triples per step.
    size: usize,
}

impl Trainable for Sampled<'_> {
    fn parameters(&self) -> Vec<Var> {
        self.model.parameters()
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        Ok(self.model.loss(&self.sampler.draw(step, self.size), true)?)
    }

    fn embeddings(&self) -> Result<NodeEmbeddings> {
        nodes(&self.model)
    }
}

fn nodes(model: &Model) -> Result<NodeEmbeddings> {
    let [users, items] = model.embeddings()?;
    Ok(NodeEmbeddings { users, items })
}

#[cfg(test)]
mod tests;
