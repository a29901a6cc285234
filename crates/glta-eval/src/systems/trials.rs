//! Searches over one setting of a contrastive model. Trained models are stored in the folder of the
//! seed, so that an interrupted search continues with the next value.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use glta_baselines::{ContrastiveEpoch, TrainedContrastive};
use glta_core::{Progress, search, write_whole};
use glta_graph::NodeEmbeddings;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ease::no_score;
use super::lightgcn::Nodes;
use crate::row::Curve;
use crate::seed::Seed;
use crate::system::Fitted;
use crate::users::file_name;
use crate::{Error, Result};

/// Name of the folder for trained models, within the folder of the seed.
const FOLDER: &str = "trials";

/// A search over the values of one setting.
pub(crate) struct Trials<'a, V, C> {
    pub(crate) system: &'static str,
    /// Name of the setting.
    pub(crate) setting: &'static str,
    /// The values of the setting, each with its complete configuration.
    pub(crate) candidates: Vec<(V, C)>,
    /// Maximum number of epochs.
    pub(crate) epochs: usize,
    /// Text vectors that the model reads.
    pub(crate) texts: Vec<ArrayView2<'a, f32>>,
}

/// The result of training with one value of the setting.
#[derive(Debug, Serialize, Deserialize)]
struct Trial {
    validation: f64,
    curve: Curve,
    seconds: f64,
}

impl<V: Copy + Display + Serialize, C: Clone + Serialize> Trials<'_, V, C> {
    /// Trains every candidate, or loads it if an earlier process has trained it. Returns the
    /// candidate that is best on validation data.
    pub(crate) fn fit(
        &self,
        seed: &mut Seed<'_>,
        train: impl Fn(&C, &mut dyn Progress<ContrastiveEpoch>) -> Result<TrainedContrastive>,
    ) -> Result<Fitted> {
        let (system, total) = (self.system, self.candidates.len());
        let mut seconds = 0.0;
        let mut tried = 0;
        let found = search(&self.candidates, |(value, config)| -> Result<_> {
            tried += 1;
            let work = format!("{system} {tried}/{total}");
            let (trial, nodes) = self.trained(seed, &work, config, &train)?;
            seconds += trial.seconds;
            let (setting, valid) = (self.setting, trial.validation);
            seed.note(&format!("{system}, {setting} {value}: valid N@10 {valid:.4}"))?;
            Ok((valid, (trial, nodes)))
        })?;
        let (best, (trial, nodes)) = found.best.ok_or_else(|| no_score(system))?;
        Ok(Fitted::new(Nodes(Arc::new(nodes)))
            .setting(self.setting, self.candidates[best].0)
            .setting("tried", total)
            .seconds(seconds / total as f64)
            .curve(trial.curve))
    }

    fn trained(
        &self,
        seed: &mut Seed<'_>,
        work: &str,
        config: &C,
        train: &impl Fn(&C, &mut dyn Progress<ContrastiveEpoch>) -> Result<TrainedContrastive>,
    ) -> Result<(Trial, NodeEmbeddings)> {
        let folder = seed.folder().join(FOLDER);
        let name = self.file_name(seed, config)?;
        let (record, nodes) =
            (folder.join(format!("{name}.json")), folder.join(format!("{name}.safetensors")));
        if seed.has(&record)? {
            let text = std::fs::read(&record).map_err(|e| Error::io(&record, e))?;
            let trial = serde_json::from_slice(&text).map_err(|e| Error::file(&record, e))?;
            return Ok((trial, NodeEmbeddings::load(&nodes)?));
        }
        let started = Instant::now();
        let progress = &mut *seed.progress;
        let mut report = |epoch: &ContrastiveEpoch| {
            let ContrastiveEpoch { epoch, loss, validation, .. } = *epoch;
            Seed::epoch(progress, work, (epoch, self.epochs), loss, validation)
        };
        let trained = train(config, &mut report)?;
        let trial = Trial {
            validation: seed.validation(&trained.embeddings.scorer())?,
            curve: Curve::of(trained.history.iter().map(|e| (e.loss, e.validation))),
            seconds: started.elapsed().as_secs_f64(),
        };
        // No rank may look for the files while rank 0 writes them.
        seed.comm().barrier()?;
        if seed.comm().is_root() {
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            trained.embeddings.save(&nodes)?;
            // Write this file last: it marks the embeddings as complete.
            let text = serde_json::to_vec_pretty(&trial).map_err(|e| Error::file(&record, e))?;
            write_whole(&record, &text).map_err(|e| Error::io(&record, e))?;
        }
        Ok((trial, trained.embeddings))
    }

    /// Returns the file name of a candidate: the system's name and a hash of all inputs.
    fn file_name(&self, seed: &Seed<'_>, config: &C) -> Result<String> {
        let split = seed.config().protocol.split_config(seed.number());
        let settings = serde_json::to_vec(&(split, config));
        let mut hash = Sha256::new();
        hash.update(settings.map_err(|e| Error::file(seed.folder(), e))?);
        for texts in &self.texts {
            hash.update((texts.ncols() as u64).to_le_bytes());
            texts.iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
        let digest = hash.finalize();
        let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}-{digits}", file_name(self.system).trim_end_matches(".jsonl")))
    }
}
