//! What a system is given to fit on: a seed's split, and what several systems share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glta_align::{LanguageModel, RunData};
use glta_comm::Communicator;
use glta_core::{TextEncoder, report};
use glta_data::{Dataset, Split};
use glta_metrics::{EvaluationConfig, Metric, Scorer, evaluate};
use ndarray::Array2;

use crate::config::ExperimentConfig;
use crate::event::{Event, Progress};
use crate::shared::Shared;
use crate::{Error, Result};

/// One seed of an experiment, as a [`System`](crate::System) sees it.
pub struct Seed<'a> {
    pub(crate) number: u64,
    pub(crate) dataset: &'a Dataset,
    pub(crate) split: &'a Split,
    pub(crate) config: &'a ExperimentConfig,
    pub(crate) folder: PathBuf,
    pub(crate) language: Option<&'a LanguageModel>,
    pub(crate) encoder: Option<&'a dyn TextEncoder>,
    pub(crate) comm: Arc<dyn Communicator>,
    /// The system that is fitted now.
    pub(crate) system: String,
    pub(crate) vectors: &'a mut TextVectors,
    pub(crate) shared: Shared,
    pub(crate) progress: &'a mut Progress<'a>,
}

/// Text vectors of all items, `(items, dim)`, read once for all seeds.
#[derive(Default)]
pub(crate) struct TextVectors {
    pub(crate) language: Option<Arc<Array2<f32>>>,
    pub(crate) encoder: Option<Arc<Array2<f32>>>,
}

/// Number of items that have a text.
pub(crate) fn texts(dataset: &Dataset, config: &ExperimentConfig) -> Result<usize> {
    let texts = dataset.texts(&config.protocol.texts)?;
    Ok(texts.iter().filter(|text| !text.trim().is_empty()).count())
}

impl<'a> Seed<'a> {
    /// The seed.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The whole data set: items with their texts, raw ids. Its interactions include the
    /// test items.
    pub fn dataset(&self) -> &'a Dataset {
        self.dataset
    }

    /// The seed's split.
    pub fn split(&self) -> &'a Split {
        self.split
    }

    /// The experiment's configuration.
    pub fn config(&self) -> &'a ExperimentConfig {
        self.config
    }

    /// The seed's folder, for files that a resumed experiment finds again.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The language model.
    ///
    /// # Errors
    /// [`Error::NoLanguage`].
    pub fn language(&self) -> Result<&'a LanguageModel> {
        self.language.ok_or_else(|| Error::NoLanguage { system: self.system.clone() })
    }

    /// The ranks that fit together.
    pub fn comm(&self) -> &Arc<dyn Communicator> {
        &self.comm
    }

    /// N@10 on the validation items, training items left out: what settings are chosen by.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn validation(&self, scorer: &dyn Scorer) -> Result<f64> {
        validation(scorer, self.split)
    }

    /// Reports that `done` of `total` units of work are done.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the progress asks to stop.
    pub fn advance(&mut self, work: &str, done: u64, total: u64, note: &str) -> Result<()> {
        Ok(report(self.progress, &Event::Work { work, done, total, note })?)
    }

    /// Reports a remark that is worth a line.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the progress asks to stop.
    pub fn note(&mut self, line: &str) -> Result<()> {
        Ok(report(self.progress, &Event::Note(line))?)
    }

    /// Vectors of all items' texts from the frozen language model, `(items, hidden)`, not
    /// whitened.
    ///
    /// # Errors
    /// No language model, or what it refuses.
    pub fn text_vectors(&mut self) -> Result<Arc<Array2<f32>>> {
        if self.vectors.language.is_none() {
            let texts = self.dataset.texts(&self.config.protocol.texts)?;
            let (language, config) = (self.language()?, &self.config.glta.item_text.vectors);
            let progress = &mut *self.progress;
            let mut report = |event: &glta_align::Event| progress.report(&Event::Run(event));
            let read = language.text_vectors_on(&*self.comm, &texts, config, &mut report)?;
            self.vectors.language = Some(Arc::new(read));
        }
        Ok(self.vectors.language.clone().unwrap_or_default())
    }

    /// Whether there are texts that can be compared.
    pub(crate) fn has_texts(&self) -> Result<bool> {
        Ok(texts(self.dataset, self.config)? > 1)
    }

    /// What GLTA runs of this seed learn from.
    pub(crate) fn run_data(&mut self) -> Result<Arc<RunData>> {
        if let Some(data) = self.shared.get::<RunData>() {
            return Ok(data);
        }
        let texts = &self.config.protocol.texts;
        let data = RunData::new(self.dataset, self.split, texts)?;
        Ok(self.shared.put(data))
    }

    /// Whether a file is there, as rank 0 sees it.
    pub(crate) fn has(&self, path: &Path) -> Result<bool> {
        Ok(self.comm.root_says(path.exists())?)
    }

    /// Reports an epoch of a graph model.
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

/// N@10 on the validation items of a split, training items left out.
pub(crate) fn validation(scorer: &dyn Scorer, split: &Split) -> Result<f64> {
    let config = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let report = evaluate(scorer, &split.valid, &[&split.train], &config)?;
    Ok(report.get(Metric::Ndcg, 10).unwrap_or_default())
}
