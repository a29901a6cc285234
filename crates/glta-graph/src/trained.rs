use std::collections::BTreeMap;

use serde::Serialize;

use crate::NodeEmbeddings;

/// A report of one epoch of training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EpochReport {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss of the epoch's triples, including L2.
    pub loss: f64,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f32,
    /// Wall time of the epoch's training in seconds, without the evaluation.
    pub seconds: f64,
    /// Value of the selection metric on the validation data; `None` if the epoch was not evaluated.
    pub validation: Option<f64>,
    /// All metrics by short name, such as `R@20`, at cut-offs 5, 10, 20 and `selection.k`. Empty if
    /// the epoch was not evaluated.
    pub metrics: BTreeMap<String, f64>,
    /// Whether this epoch is the best so far.
    pub best: bool,
}

/// Result of a training run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trained {
    /// Propagated embeddings of the returned epoch, for scoring.
    pub embeddings: NodeEmbeddings,
    /// Layer-0 embeddings of the returned epoch, for further training.
    pub layer0: NodeEmbeddings,
    /// Reports of all epochs in order.
    pub history: Vec<EpochReport>,
    /// Number of the returned epoch, from 1; 0 if no epoch has run.
    pub best_epoch: usize,
}

impl Trained {
    /// Returns the selection metric of the returned epoch, if it was evaluated.
    pub fn best_validation(&self) -> Option<f64> {
        self.history.get(self.best_epoch.checked_sub(1)?)?.validation
    }
}
