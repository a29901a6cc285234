//! AlphaRec: a graph recommender whose only parameters are an MLP over text vectors.

mod config;
mod model;
mod sampler;

pub use config::AlphaRecConfig;

use candle_core::{Tensor, Var};
use glta_core::{Progress, Silent};
use glta_data::Interactions;
use glta_graph::NodeEmbeddings;
use ndarray::ArrayView2;

use crate::tensors::check_vectors;
use crate::train::{ContrastiveEpoch, Schedule, Trainable, TrainedContrastive, fit};
use crate::{Error, Result};
use model::Model;
use sampler::Sampler;

/// AlphaRec (Sheng et al. 2025, "Language Representations Can Be What Recommenders Need"), a graph
/// recommender without node embeddings. An MLP of two layers maps text vectors to layer 0 of
/// LightGCN. The text vector of a user is the mean of the text vectors of the user's training
/// items. The hidden layer of the MLP is half as wide as the text vectors. The loss is InfoNCE over
/// cosine similarities.
///
/// ```
/// use glta_baselines::{AlphaRec, AlphaRecConfig};
/// use glta_data::Interactions;
/// use glta_metrics::top_k;
/// use ndarray::Array2;
///
/// // Two groups of users with different tastes, and texts that separate the groups.
/// let pairs = (0..20u32).flat_map(|u| (0..4u32).map(move |k| (u, 5 * (u % 2) + (u + k) % 5)));
/// let train = Interactions::from_pairs(20, 10, pairs)?;
/// let texts = Array2::from_shape_fn((10, 4), |(i, c)| (i / 5 * 2 + i % 2 * c) as f32);
///
/// let config = AlphaRecConfig { dim: 8, epochs: 30, learning_rate: 0.01, ..Default::default() };
/// let trained = AlphaRec::new(config)?.train(&train, None, texts.view())?;
/// let best = top_k(&trained.embeddings.scorer(), &[0], &[&train], 1)?;
/// assert_eq!(best[0][0].item, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AlphaRec {
    config: AlphaRecConfig,
}

impl AlphaRec {
    /// Creates a trainer with the given settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if [`AlphaRecConfig::validate`] fails.
    pub fn new(config: AlphaRecConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Trains on `train`. `texts`, `(items, text dim)`, contains a row of zeros for an item without
    /// a text. With validation data, training can stop early, and the result has the embeddings of
    /// the best epoch. All embeddings have length 1.
    ///
    /// # Errors
    /// Returns an error if every user has no item or all items, if the numbers of users or items of
    /// the texts or the validation data differ from those of `train`, or if the loss is not finite.
    pub fn train(
        &self,
        train: &Interactions,
        valid: Option<&Interactions>,
        texts: ArrayView2<'_, f32>,
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
        texts: ArrayView2<'_, f32>,
        progress: &mut dyn Progress<ContrastiveEpoch>,
    ) -> Result<TrainedContrastive> {
        let config = &self.config;
        check_vectors(texts, "items", train.n_items())?;
        if texts.ncols() == 0 {
            return Err(Error::TextVectors("they have no columns".into()));
        }
        let sampler = Sampler::new(train, config.seed, config.negatives);
        if sampler.len() == 0 {
            return Err(Error::NothingToTrain);
        }
        let model = Model::new(config, train, texts)?;
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
    /// Number of interactions per step.
    size: usize,
}

impl Trainable for Sampled<'_> {
    fn parameters(&self) -> Vec<Var> {
        self.model.parameters()
    }

    fn loss(&self, step: u64) -> Result<Tensor> {
        Ok(self.model.loss(&self.sampler.draw(step, self.size))?)
    }

    fn embeddings(&self) -> Result<NodeEmbeddings> {
        Ok(self.model.embeddings()?)
    }
}

#[cfg(test)]
mod tests;
