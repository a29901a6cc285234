//! LightGCN as a system. GLTA runs of the seed with prompts use its embeddings.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use glta_core::{search, write_whole};
use glta_data::SplitConfig;
use glta_graph::{EpochReport, LightGcn, LightGcnConfig, NodeEmbeddings};
use glta_metrics::{Scorer, ScorerError};
use ndarray::ArrayViewMut2;
use serde::{Deserialize, Serialize};

use super::ease::no_score;
use crate::error::BoxError;
use crate::row::Curve;
use crate::seed::Seed;
use crate::system::{Fitted, System};
use crate::{Error, Result};

/// A record of the training of the stored embeddings.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Training {
    l2: f32,
    tried: usize,
    seconds: f64,
    curve: Curve,
    /// The settings of the embeddings. If they differ, the embeddings are trained again.
    settings: TrainedOn,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TrainedOn {
    split: SplitConfig,
    graph: LightGcnConfig,
    l2: Vec<f32>,
}

impl Seed<'_> {
    /// Returns the embeddings of LightGCN with the L2 weight that is best on validation data. They
    /// are trained on first use.
    ///
    /// # Errors
    /// Returns the error of the training, or an error if a file cannot be read or written.
    pub fn lightgcn(&mut self) -> Result<Arc<NodeEmbeddings>> {
        Ok(self.lightgcn_trained()?.0)
    }

    fn lightgcn_trained(&mut self) -> Result<(Arc<NodeEmbeddings>, Training)> {
        let settings = TrainedOn {
            split: self.config().protocol.split_config(self.number()),
            graph: self.config().glta.graph.clone(),
            l2: self.config().baselines.graph_l2.clone(),
        };
        let (_, path) = self.lightgcn_files();
        let found = self.has(&path)?.then(|| read(&path)).transpose()?;
        let training = match found.filter(|training| training.settings == settings) {
            Some(training) => training,
            None => {
                self.train_lightgcn(settings)?;
                // Other ranks must not read before rank 0 has written.
                self.comm().barrier()?;
                read(&path)?
            }
        };
        if let Some(embeddings) = self.shared.get() {
            return Ok((embeddings, training));
        }
        let embeddings = NodeEmbeddings::load(self.lightgcn_files().0)?;
        Ok((self.shared.put(embeddings), training))
    }

    fn lightgcn_files(&self) -> (PathBuf, PathBuf) {
        let file = |name| self.folder().join(name);
        (file("lightgcn.safetensors"), file("lightgcn.json"))
    }

    fn train_lightgcn(&mut self, settings: TrainedOn) -> Result<()> {
        let (split, base) = (self.split(), &self.config().glta.graph);
        let grid = &self.config().baselines.graph_l2;
        let mut tried = 0;
        let found = search(grid, |&l2| -> Result<_> {
            tried += 1;
            let config = LightGcnConfig { l2, seed: self.number(), ..base.clone() };
            let work = format!("LightGCN {tried}/{}", grid.len());
            let epochs = config.epochs;
            let started = Instant::now();
            let comm = Arc::clone(self.comm());
            let progress = &mut *self.progress;
            let valid = Some(&split.valid);
            let model = LightGcn::new(config)?;
            let mut report = |epoch: &EpochReport| {
                Seed::epoch(progress, &work, (epoch.epoch, epochs), epoch.loss, epoch.validation)
            };
            let trained = model.train_on(&*comm, None, &split.train, valid, &mut report)?;
            let seconds = started.elapsed().as_secs_f64();
            let valid = trained.best_validation().unwrap_or(f64::NEG_INFINITY);
            self.note(&format!("LightGCN, l2 {l2}: valid N@10 {valid:.4}"))?;
            Ok((valid, (trained, seconds)))
        })?;
        let (best, (trained, seconds)) = found.best.ok_or_else(|| no_score("LightGCN"))?;
        let training = Training {
            l2: grid[best],
            tried: grid.len(),
            seconds,
            curve: Curve::of(trained.history.iter().map(|e| (e.loss, e.validation))),
            settings,
        };
        if self.comm().is_root() {
            let (nodes, record) = self.lightgcn_files();
            trained.embeddings.save(&nodes)?;
            // Write this file last: it marks the embeddings as complete.
            let text = serde_json::to_vec_pretty(&training).map_err(|e| Error::file(&record, e))?;
            write_whole(&record, &text).map_err(|e| Error::io(&record, e))?;
        }
        self.shared.put(trained.embeddings);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Training> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(path, e))
}

pub(crate) struct LightGcnSystem;

impl System for LightGcnSystem {
    fn name(&self) -> &str {
        "LightGCN"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let (nodes, training) = seed.lightgcn_trained()?;
        Ok(Fitted::new(Nodes(nodes))
            .setting("l2", training.l2)
            .setting("tried", training.tried)
            .seconds(training.seconds)
            .curve(training.curve))
    }
}

/// A scorer by the inner products of node embeddings.
pub(crate) struct Nodes(pub(crate) Arc<NodeEmbeddings>);

impl Scorer for Nodes {
    fn n_items(&self) -> usize {
        self.0.items.nrows()
    }

    fn score(
        &self,
        users: &[u32],
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        self.0.scorer().score(users, out)
    }

    fn scores_item_ranges(&self) -> bool {
        true
    }

    fn score_items(
        &self,
        users: &[u32],
        first_item: usize,
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        self.0.scorer().score_items(users, first_item, out)
    }
}
