//! The input of a system: the split of a seed, and intermediate results that systems share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glta_align::{Backbone, Config, Encoders, ItemEncoder, ItemVectors, LanguageModel, RunData};
use glta_comm::Communicator;
use glta_core::{TextEncoder, report};
use glta_data::{Dataset, Split};
use glta_metrics::{EvaluationConfig, Metric, Scorer, evaluate};

use crate::config::ExperimentConfig;
use crate::event::{Event, Progress};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::{Error, Result};

/// One seed of an experiment, the input of a [`System`](crate::System).
pub struct Seed<'a> {
    pub(crate) number: u64,
    pub(crate) dataset: &'a Dataset,
    pub(crate) split: &'a Split,
    pub(crate) config: &'a ExperimentConfig,
    pub(crate) folder: PathBuf,
    pub(crate) language: Option<&'a LanguageModel>,
    pub(crate) encoder: Option<&'a dyn TextEncoder>,
    pub(crate) comm: Arc<dyn Communicator>,
    /// Name of the system that is being fitted.
    pub(crate) system: String,
    pub(crate) vectors: &'a mut Vec<(Source, ItemVectors)>,
    pub(crate) shared: Shared,
    pub(crate) progress: &'a mut Progress<'a>,
}

/// The origin of text vectors that are computed or read once for all seeds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Encoder(ItemEncoder),
    File(PathBuf),
}

/// Text vectors of a language model with the random weights of this seed.
struct RandomVectors(ItemVectors);

/// Returns the number of items that have a text.
pub(crate) fn texts(dataset: &Dataset, config: &ExperimentConfig) -> Result<usize> {
    let texts = dataset.texts(&config.protocol.texts)?;
    Ok(texts.iter().filter(|text| !text.trim().is_empty()).count())
}

impl<'a> Seed<'a> {
    /// Returns the seed of the split and of all training.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the whole data set: raw ids, items with their texts, and all interactions. The
    /// interactions include the test part.
    pub fn dataset(&self) -> &'a Dataset {
        self.dataset
    }

    /// Returns the split of the seed.
    pub fn split(&self) -> &'a Split {
        self.split
    }

    /// Returns the configuration of the experiment.
    pub fn config(&self) -> &'a ExperimentConfig {
        self.config
    }

    /// Returns the folder of the seed, for files that a resumed experiment reuses.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the language model.
    ///
    /// # Errors
    /// Returns [`Error::NoLanguage`] if the experiment has none.
    pub fn language(&self) -> Result<&'a LanguageModel> {
        self.language.ok_or_else(|| Error::NoLanguage { system: self.system.clone() })
    }

    /// Returns the communicator of the ranks that run the experiment together.
    pub fn comm(&self) -> &Arc<dyn Communicator> {
        &self.comm
    }

    /// Computes N@10 on the validation items, with training items masked. Settings are chosen by
    /// this value.
    ///
    /// # Errors
    /// Returns the errors of [`evaluate`].
    pub fn validation(&self, scorer: &dyn Scorer) -> Result<f64> {
        validation(scorer, self.split)
    }

    /// Reports that `done` of `total` units of work are finished.
    ///
    /// # Errors
    /// Returns [`Error::Cancelled`] if the progress callback cancels the experiment.
    pub fn advance(&mut self, work: &str, done: u64, total: u64, note: &str) -> Result<()> {
        Ok(report(self.progress, &Event::Work { work, done, total, note })?)
    }

    /// Reports a message for the user.
    ///
    /// # Errors
    /// Returns [`Error::Cancelled`] if the progress callback cancels the experiment.
    pub fn note(&mut self, line: &str) -> Result<()> {
        Ok(report(self.progress, &Event::Note(line))?)
    }

    /// Returns the text vectors of all items, one entry per available encoder of the main row's
    /// configuration (language model, TF-IDF, sentence encoder) and per file. If fewer than two
    /// items have a text, returns only those of the files.
    ///
    /// # Errors
    /// Returns the error of an encoder.
    pub fn item_vectors(&mut self) -> Result<Vec<ItemVectors>> {
        self.item_vectors_of(&self.config.glta)
    }

    /// Returns the encoders of a configuration, without the language model if the experiment has
    /// none.
    pub(crate) fn encoders(&self, config: &Config) -> Vec<ItemEncoder> {
        let there = |&encoder: &ItemEncoder| !self.lacks(encoder);
        config.item_encoders().filter(there).collect()
    }

    /// Returns whether the encoder is the language model but the experiment has no language model.
    fn lacks(&self, encoder: ItemEncoder) -> bool {
        encoder == ItemEncoder::LanguageModel && self.language.is_none()
    }

    /// Returns the encoders of a configuration that are not available; empty if fewer than two
    /// items have a text.
    pub(crate) fn left_out(&self, config: &Config) -> Result<Vec<ItemEncoder>> {
        let left_out = config.item_encoders().filter(|&encoder| self.lacks(encoder));
        Ok(if self.has_texts()? { left_out.collect() } else { Vec::new() })
    }

    /// Does the same as [`item_vectors`](Self::item_vectors) for the encoders of a given
    /// configuration.
    pub(crate) fn item_vectors_of(&mut self, config: &Config) -> Result<Vec<ItemVectors>> {
        let mut all = Vec::new();
        if !self.left_out(config)?.is_empty() {
            let system = self.system.clone();
            self.note(&format!(
                "{system} has no text vectors of a language model, because there is none"
            ))?;
        }
        let encoders = if self.has_texts()? { self.encoders(config) } else { Vec::new() };
        for encoder in encoders {
            let random =
                encoder == ItemEncoder::LanguageModel && config.backbone == Backbone::RandomLlm;
            all.extend(if random {
                Some(self.random_vectors()?)
            } else {
                self.vectors_by(encoder)?
            });
        }
        for path in &config.item_text.files {
            all.push(self.vectors_from(path)?);
        }
        Ok(all)
    }

    /// Returns the vectors of one encoder; `None` if the encoder is TF-IDF and finds no words.
    pub(crate) fn vectors_by(&mut self, encoder: ItemEncoder) -> Result<Option<ItemVectors>> {
        let source = Source::Encoder(encoder);
        if let Some((_, vectors)) = self.vectors.iter().find(|(other, _)| *other == source) {
            return Ok(Some(vectors.clone()));
        }
        let texts = self.dataset.texts(&self.config.protocol.texts)?;
        let (language, sentence, comm) = (self.language, self.encoder, &*self.comm);
        if encoder == ItemEncoder::LanguageModel && language.is_none() {
            return Err(Error::NoLanguage { system: self.system.clone() });
        }
        if encoder == ItemEncoder::Sentence && sentence.is_none() {
            let reason = Reason::Encoder.to_string();
            return Err(Error::CannotRun { system: self.system.clone(), reason });
        }
        let progress = &mut *self.progress;
        let report = &mut |event: &glta_align::Event| progress.report(&Event::Run(event));
        let encoders = Encoders { language, sentence, comm };
        let config = &self.config.glta.item_text;
        let Some(vectors) = encoders.encode(encoder, &texts, config, report)? else {
            return Ok(None);
        };
        self.vectors.push((source, vectors.clone()));
        Ok(Some(vectors))
    }

    /// Returns the vectors of the language model with random weights.
    fn random_vectors(&mut self) -> Result<ItemVectors> {
        if let Some(vectors) = self.shared.get::<RandomVectors>() {
            return Ok(vectors.0.clone());
        }
        let texts = self.dataset.texts(&self.config.protocol.texts)?;
        let random = self.language()?.randomized(self.number)?;
        let how = &self.config.glta.item_text.language_model;
        let progress = &mut *self.progress;
        let mut report = |event: &glta_align::Event| progress.report(&Event::Run(event));
        let vectors =
            ItemVectors::language_model_on(&random, &*self.comm, &texts, how, &mut report)?;
        Ok(self.shared.put(RandomVectors(vectors)).0.clone())
    }

    /// Reads the vectors of a file.
    fn vectors_from(&mut self, path: &Path) -> Result<ItemVectors> {
        let source = Source::File(path.to_owned());
        if let Some((_, vectors)) = self.vectors.iter().find(|(other, _)| *other == source) {
            return Ok(vectors.clone());
        }
        let ids = self.dataset.items().iter().map(|item| item.raw_id.as_str());
        let vectors = ItemVectors::file(path, ids)?;
        self.vectors.push((source, vectors.clone()));
        Ok(vectors)
    }

    /// Returns whether at least two items have texts.
    pub(crate) fn has_texts(&self) -> Result<bool> {
        Ok(texts(self.dataset, self.config)? > 1)
    }

    /// Returns the training data of the GLTA runs of this seed.
    pub(crate) fn run_data(&mut self) -> Result<Arc<RunData>> {
        if let Some(data) = self.shared.get::<RunData>() {
            return Ok(data);
        }
        let texts = &self.config.protocol.texts;
        let data = RunData::new(self.dataset, self.split, texts)?;
        Ok(self.shared.put(data))
    }

    /// Returns whether rank 0 finds the file.
    pub(crate) fn has(&self, path: &Path) -> Result<bool> {
        Ok(self.comm.root_says(path.exists())?)
    }

    /// Reports a finished epoch of a graph model.
    pub(crate) fn epoch(
        progress: &mut Progress<'_>,
        work: &str,
        (epoch, epochs): (usize, usize),
        loss: f64,
        validation: Option<f64>,
    ) -> ControlFlow<()> {
        let note = match validation {
            Some(v) => format!("valid N@10 {v:.4}"),
            None => format!("loss {loss:.4}"),
        };
        let (done, total) = (epoch as u64, epochs as u64);
        progress.report(&Event::Work { work, done, total, note: &note })
    }
}

/// Computes N@10 on the validation items of a split, with training items masked.
pub(crate) fn validation(scorer: &dyn Scorer, split: &Split) -> Result<f64> {
    let config = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let report = evaluate(scorer, &split.valid, &[&split.train], &config)?;
    Ok(report.get(Metric::Ndcg, 10).unwrap_or_default())
}
