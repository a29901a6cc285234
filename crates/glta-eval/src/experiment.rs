//! Runs an experiment on a data set and returns the record of all systems.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use glta_align::{ItemEncoder, LanguageModel};
use glta_comm::{Alone, Communicator};
use glta_core::{Silent, TextEncoder, report};
use glta_data::{Dataset, Item, Split};

use crate::config::ExperimentConfig;
use crate::event::{Event, Progress};
use crate::identity::{EncoderRecord, data_hash, file_hashes};
use crate::measure::measure;
use crate::reason::Reason;
use crate::record::{LlmRecord, Protocol, Record, Skipped};
use crate::seed::{self, Seed};
use crate::shared::Shared;
use crate::system::System;
use crate::systems::{self, Available, Standard};
use crate::{Error, Result, users};

/// An experiment, which fits and measures several systems on one data set with one protocol.
///
/// For each seed, the data set is split, every system is fitted on the training part, its settings
/// are chosen on the validation part, and it is measured on the test part. The folder receives
/// `metrics.json`, the users' results and the models.
///
/// ```
/// use glta_data::{Dataset, ShopConfig};
/// use glta_eval::{Density, Experiment, ExperimentConfig, Preset};
///
/// let shop = Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() })?;
/// let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
/// config.run.only = vec!["Popularity".into(), "EASE".into()];
///
/// let folder = tempfile::tempdir()?;
/// let record = Experiment::new(&shop, folder.path(), config).run()?;
/// assert_eq!(record.systems(), ["Popularity", "EASE"]);
/// println!("{}", record.table());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Experiment<'a> {
    dataset: &'a Dataset,
    folder: PathBuf,
    config: ExperimentConfig,
    own: Vec<Box<dyn System + 'a>>,
    language: Option<LanguageModel>,
    encoder: Option<Box<dyn TextEncoder>>,
    comm: Arc<dyn Communicator>,
    resume: bool,
}

impl<'a> Experiment<'a> {
    /// Creates an experiment that writes its results to `folder`.
    pub fn new(dataset: &'a Dataset, folder: impl AsRef<Path>, config: ExperimentConfig) -> Self {
        Self {
            dataset,
            folder: folder.as_ref().to_owned(),
            config,
            own: Vec::new(),
            language: None,
            encoder: None,
            comm: Arc::new(Alone),
            resume: false,
        }
    }

    /// Adds a system. Its rows follow those of the built-in systems.
    #[must_use]
    pub fn system(mut self, system: impl System + 'a) -> Self {
        self.own.push(Box::new(system));
        self
    }

    /// Sets the language model. GLTA uses it in prompts, the linear models use it as a text
    /// encoder, and the contrastive models use it for their texts. Without a language model the
    /// systems that need one are skipped, and the record lists them.
    #[must_use]
    pub fn language(mut self, language: LanguageModel) -> Self {
        self.language = Some(language);
        self
    }

    /// Sets the sentence encoder. It replaces the language model as the encoder of the contrastive
    /// models, and encodes the texts of the linear models if `item_text.encoders` contains
    /// `sentence`.
    #[must_use]
    pub fn text_encoder(mut self, encoder: Box<dyn TextEncoder>) -> Self {
        self.encoder = Some(encoder);
        self
    }

    /// Sets whether to resume an experiment in the folder; `false` is the default. Finished rows
    /// are kept. Only the section `run` of the configuration may differ.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Sets the communicator of the ranks that run the experiment together. All ranks must make the
    /// same calls; rank 0 writes the files. Default a single process.
    #[must_use]
    pub fn on(mut self, comm: Arc<dyn Communicator>) -> Self {
        self.comm = comm;
        self
    }

    /// Returns a record with the statistics of the data set and without rows. The record is saved
    /// unless the folder contains an experiment.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or written.
    pub fn describe(&self) -> Result<Record> {
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        let record = self.blank()?;
        let old = Record::load(&self.folder)?;
        // All ranks must have read the folder before rank 0 writes.
        self.comm.barrier()?;
        if old.is_none() && self.comm.is_root() {
            record.save()?;
        }
        Ok(record)
    }

    /// Checks whether [`run`](Self::run) would accept the settings and the folder. This needs no
    /// models, so call it before you load them.
    ///
    /// # Errors
    /// Returns an error for an invalid configuration or an unreadable record, [`Error::Exists`], or
    /// [`Error::Differs`].
    pub fn check_folder(&self) -> Result<()> {
        self.check_settings()?;
        let old = Record::load(&self.folder)?;
        let mut new = self.blank()?;
        new.text_encoder = old.as_ref().and_then(|old| old.text_encoder.clone());
        self.check_old(old.as_ref(), &new)
    }

    /// Returns whether one of the systems to run needs the language model, for prompts or to encode
    /// texts. `has_encoder` states whether the experiment will have a sentence encoder.
    pub fn uses_language(&self, has_encoder: bool) -> bool {
        let textless = self.dataset.items().iter().all(Item::is_textless);
        let encoder = !textless && self.config.glta.language_model_reads_items();
        let systems = systems::standard(&self.config);
        systems
            .iter()
            .filter(|s| s.is_chosen(&self.config.run))
            .any(|system| system.needs_language(has_encoder) || (encoder && system.reads_texts()))
    }

    /// Runs all systems and returns the record.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] or [`Error::Differs`] for the folder, an error for an invalid
    /// configuration, or the error of a system. Finished rows are kept.
    pub fn run(self) -> Result<Record> {
        self.run_with(&mut Silent)
    }

    /// Runs all systems like [`run`](Self::run) and reports progress.
    ///
    /// # Errors
    /// Returns the errors of [`run`](Self::run), and [`Error::Cancelled`] if `progress` cancels the
    /// experiment.
    pub fn run_with(self, progress: &mut Progress<'_>) -> Result<Record> {
        self.check_settings()?;
        let _lock = self.comm.is_root().then(|| self.lock()).transpose()?;
        self.comm.barrier()?;
        let mut record = self.begin()?;
        let standard = systems::standard(&self.config);
        let chosen = self.chosen(&standard, &mut record, progress)?;
        let mut vectors = Vec::new();
        for &number in &self.config.run.seeds {
            let missing = chosen.iter().filter(|s| record.row(s.name(), number).is_none());
            let missing: Vec<&dyn System> = missing.copied().collect();
            if missing.is_empty() {
                continue;
            }
            let split = Split::new(self.dataset, &self.config.protocol.split_config(number))?;
            let folder = self.folder.join(format!("seed-{number}"));
            if self.comm.is_root() {
                std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            }
            self.comm.barrier()?;
            let mut seed = Seed {
                number,
                dataset: self.dataset,
                split: &split,
                config: &self.config,
                folder,
                language: self.language.as_ref(),
                encoder: self.encoder.as_deref(),
                comm: Arc::clone(&self.comm),
                system: String::new(),
                vectors: &mut vectors,
                shared: Shared::default(),
                progress: &mut *progress,
            };
            for system in missing {
                self.add_row(&mut record, &mut seed, system)?;
            }
        }
        if self.comm.is_root() {
            record.save()?;
        }
        Ok(record)
    }

    /// Fits and measures a system and saves its row.
    fn add_row(&self, record: &mut Record, seed: &mut Seed<'_>, system: &dyn System) -> Result<()> {
        let (name, number) = (system.name(), seed.number);
        seed.system = name.to_owned();
        let started = Instant::now();
        let fitted = match system.fit(seed).map_err(|e| Error::system(name, number, e)) {
            // Skip only this system; the others can still run.
            Err(Error::CannotRun { system, reason }) => {
                report(seed.progress, &Event::Note(&format!("{system} is not run: {reason}")))?;
                record.skipped.retain(|skipped| skipped.system != system);
                record.skipped.push(Skipped { system, reason });
                return Ok(());
            }
            fitted => fitted?,
        };
        let seconds = started.elapsed().as_secs_f64();
        let (row, results) = measure(seed, name, &fitted, seconds)?;
        if self.comm.is_root() {
            users::save(&users::path(&self.folder, name, number), &results)?;
        }
        record.rows.push(row);
        if self.comm.is_root() {
            record.save()?;
        }
        if let Some(row) = record.rows.last() {
            report(seed.progress, &Event::Row(row))?;
        }
        Ok(())
    }

    fn check_settings(&self) -> Result<()> {
        self.config.validate()?;
        let own: Vec<&str> = self.own.iter().map(|s| s.name()).collect();
        let standard = systems::standard(&self.config);
        systems::check_names(&self.config.run.only, &standard, &own)
    }

    fn lock(&self) -> Result<File> {
        let lock = glta_core::lock_folder(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        lock.ok_or_else(|| Error::Locked { path: self.folder.clone() })
    }

    fn blank(&self) -> Result<Record> {
        Ok(Record {
            dataset: self.dataset.stats(),
            data: self.dataset.report().clone(),
            protocol: Protocol::new(&self.config.protocol, &self.config.run),
            llm: None,
            config: None,
            skipped: Vec::new(),
            rows: Vec::new(),
            data_hash: data_hash(self.dataset, &self.config.protocol.texts)?,
            text_encoder: None,
            text_vectors: file_hashes(&self.config.glta.item_text.files)?,
            folder: self.folder.clone(),
        })
    }

    /// Returns the record to which rows are added, and saves it: the record in the folder, or a new
    /// one without rows.
    fn begin(&self) -> Result<Record> {
        let mut record = self.blank()?;
        record.text_encoder = self.encoder.as_deref().map(EncoderRecord::new).transpose()?;
        record.llm = self.language.as_ref().map(llm_record).transpose()?;
        let old = Record::load(&self.folder)?;
        // All ranks must have read the folder before rank 0 writes a row.
        self.comm.barrier()?;
        self.check_old(old.as_ref(), &record)?;
        if let Some(old) = old {
            // A resumed experiment may have no language model although its earlier rows had one.
            record.llm = record.llm.or(old.llm);
            record.text_encoder = record.text_encoder.or(old.text_encoder);
            record.rows = old.rows;
            record.skipped = old.skipped;
        }
        record.config = Some(self.config.clone());
        if self.comm.is_root() {
            // Save before the first row, so that an experiment can be resumed if it is interrupted
            // early.
            record.save()?;
        }
        Ok(record)
    }

    /// Returns an error if the folder contains an experiment but `resume` is not set, or if that
    /// experiment has different data, models or settings.
    fn check_old(&self, old: Option<&Record>, new: &Record) -> Result<()> {
        let Some(old) = old else {
            return Ok(());
        };
        if !self.resume {
            return Err(Error::Exists { path: self.folder.clone() });
        }
        let changed = old.config.as_ref().and_then(|c| c.difference(&self.config));
        let standard = systems::standard(&self.config);
        let mut readers = standard.iter().filter(|system| system.reads_by_sentence());
        let has = readers.clone().any(|s| old.rows.iter().any(|row| row.system == s.name()));
        let adds = readers.any(|system| system.is_chosen(&self.config.run));
        let same_encoder = match (&old.text_encoder, &new.text_encoder) {
            (Some(old), Some(new)) => old.is(new),
            (old, new) => old.is_none() && new.is_none(),
        };
        let other_vectors = new
            .text_vectors
            .iter()
            .find(|(path, hash)| old.text_vectors.get(*path).is_some_and(|old| old != *hash));
        let difference = if let Some(field) = changed {
            format!("with another configuration ({field} differs)")
        } else if old.dataset != new.dataset {
            format!("on other data ({})", old.dataset)
        } else if old.data_hash != new.data_hash {
            "on other data of this size (interactions, ids or texts differ)".into()
        } else if let Some((path, _)) = other_vectors {
            format!("with other text vectors in {}", path.display())
        } else if let (Some(old), Some(new)) = (&old.llm, &new.llm)
            && (&old.hash, old.layers) != (&new.hash, new.layers)
        {
            format!("with another language model ({}, {} layers)", old.name, old.layers)
        } else if has && adds && !same_encoder {
            let encoder = old.text_encoder.as_ref().map_or("none", |encoder| &encoder.name);
            format!("with another text encoder ({encoder})")
        } else {
            return Ok(());
        };
        Err(Error::Differs { path: self.folder.clone(), difference })
    }

    /// Selects the systems to run, in the order of the rows, and records the systems that cannot
    /// run.
    fn chosen<'s>(
        &'s self,
        standard: &'s [Standard],
        record: &mut Record,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<&'s dyn System>> {
        let only = &self.config.run.only;
        let (language, encoder) = (self.language.is_some(), self.encoder.is_some());
        let texts = seed::texts(self.dataset, &self.config)?;
        let available = Available { language, encoder, texts };
        let mut chosen: Vec<&dyn System> = Vec::new();
        for system in standard {
            if !system.is_chosen(&self.config.run) {
                continue;
            }
            let seeds = &self.config.run.seeds;
            let reason = system.cannot_run(self.dataset, available);
            if seeds.iter().all(|&seed| record.row(system.name(), seed).is_some()) {
                continue;
            }
            record.skipped.retain(|skipped| skipped.system != system.name());
            if reason.is_none() && texts > 1 && !encoder {
                check_sentence(system)?;
            }
            match reason {
                None => chosen.push(&*system.system),
                Some(Reason::Language) if !only.is_empty() => {
                    return Err(Error::NoLanguage { system: system.name().to_owned() });
                }
                Some(reason @ Reason::Encoder) if !only.is_empty() => {
                    let (system, reason) = (system.name().to_owned(), reason.to_string());
                    return Err(Error::CannotRun { system, reason });
                }
                Some(reason) => {
                    let (system, reason) = (system.name().to_owned(), reason.to_string());
                    report(progress, &Event::Note(&format!("{system} is not run: {reason}")))?;
                    record.skipped.push(Skipped { system, reason });
                }
            }
        }
        let own = self.own.iter().map(|system| &**system);
        chosen.extend(own.filter(|s| only.is_empty() || only.iter().any(|name| name == s.name())));
        Ok(chosen)
    }
}

/// Returns an error if the system needs a sentence encoder. Call this only for an experiment
/// without a sentence encoder.
fn check_sentence(system: &Standard) -> Result<()> {
    if !system.encoders.contains(&ItemEncoder::Sentence) {
        return Ok(());
    }
    let problem = format!(
        "{} needs `sentence`, but the experiment has no sentence encoder (`--text-encoder`)",
        system.name()
    );
    Err(Error::Config { field: "item_text.encoders", problem })
}

fn llm_record(language: &LanguageModel) -> Result<LlmRecord> {
    let llama = language.llama.config();
    let quantization = llama.quantization.as_ref();
    Ok(LlmRecord {
        name: language.name.clone(),
        hash: language.checkpoint_hash()?.to_owned(),
        layers: llama.num_hidden_layers,
        bits: quantization.map(|q| q.bits),
        group_size: quantization
            .map(|q| q.group_size.map_or(-1, |size| i32::try_from(size).unwrap_or(i32::MAX))),
    })
}
