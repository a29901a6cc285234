use std::collections::BTreeMap;

use serde::Serialize;

use crate::NodeEmbeddings;

/// What one epoch did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EpochReport {
    /// From 1.
    pub epoch: usize,
    /// Mean loss of the epoch's triples, L2 included.
    pub loss: f64,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f32,
    /// Wall time of the epoch's training, without the evaluation.
    pub seconds: f64,
    /// The selection metric on the validation data, where it was evaluated.
    pub validation: Option<f64>,
    /// All metrics at that evaluation by their short names (`R@20`), cut off at
    /// 5, 10, 20 and the selection's `k`; empty where there was none.
    pub metrics: BTreeMap<String, f64>,
    /// Whether this is the best epoch so far.
    pub best: bool,
}

/// Result of a training run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trained {
    /// Propagated embeddings of the best epoch, to score with.
    pub embeddings: NodeEmbeddings,
    /// The learned embeddings below them, to start from another time.
    pub layer0: NodeEmbeddings,
    /// All epochs in order.
    pub history: Vec<EpochReport>,
    /// The epoch that the embeddings come from, from 1; 0 when none was run.
    pub best_epoch: usize,
}

impl Trained {
    /// The selection metric of the best epoch on the validation data.
    pub fn best_validation(&self) -> Option<f64> {
        self.history.get(self.best_epoch.checked_sub(1)?)?.validation
    }
}
