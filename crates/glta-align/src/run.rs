//! Trains a run in its folder, stage by stage.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use candle_core::Device;
use glta_comm::{Alone, Communicator};
use glta_core::{Progress, Silent, TextEncoder, report};
use glta_graph::{EpochReport, LightGcn, NodeEmbeddings};
use glta_linear::{LinearModel, LinearStep, TextVectors};
use ndarray::Array2;

use crate::artifact::{
    Finished, Parts, build, check_layers, has_vectors, load, load_data, load_vectors, save_vectors,
    used_language,
};
use crate::checkpoint::record;
use crate::config::{Backbone, Config};
use crate::data::RunData;
use crate::encoders::{Encoders, ItemVectors, SavedEncoder, Sentence};
use crate::files::{
    CONFIG, ENCODERS, HISTORY, LINEAR, MODEL, NODES, RunFolder, STATE, TEXTS, TF_IDF, USERS,
    VECTORS, read, whitening_file, write_whole,
};
use crate::language::LanguageModel;
use crate::lists::{LinearLists, validation};
use crate::model::Glta;
use crate::nodes::check_embeddings;
use crate::progress::Event;
use crate::recommender::Recommender;
use crate::report::{FitReport, Mix};
use crate::stages::{ItemStage, UserStage, choose_mix};
use crate::texts::{UserTexts, write_texts};
use crate::trained::Model;
use crate::trainer::train;
use crate::{Error, Result};

/// Name of the file with the weights after stage 2.
const ALIGNED: &str = "aligned.safetensors";

/// A training run in one folder. An interrupted run can be [resumed](Self::resume) at any point. On
/// the same number of threads, the results are those of an uninterrupted run.
///
/// ```
/// # use glta_align::{Backbone, Config, Recommender, Run, RunData};
/// # use glta_data::{Dataset, ShopConfig, Split, SplitConfig, TextConfig};
/// # let shop = Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() })?;
/// # let split = Split::new(&shop, &SplitConfig::default())?;
/// # let data = RunData::new(&shop, &split, &TextConfig::default())?;
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("shop");
/// // Without a language model here; `fit(Some(&language))` takes one.
/// let config = Config { backbone: Backbone::None, ..Config::default() };
/// let (recommender, report) = Run::create(&dir, data.clone(), config.clone())?.fit(None)?;
/// println!("validation N@10: {:?}", report.validation());
///
/// // A run that has ended is loaded.
/// let (again, _) = Run::resume(&dir, data.clone(), config.clone())?.fit(None)?;
/// assert_eq!(again.recommend(3, 5)?, recommender.recommend(3, 5)?);
/// // Nothing is overwritten.
/// assert!(Run::create(&dir, data, config).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Run {
    folder: RunFolder,
    config: Config,
    data: Arc<RunData>,
    sentence: Option<Sentence>,
    /// Duration of the linear model's fit in seconds, here or in the run from which it was copied.
    linear_seconds: OnceLock<f64>,
}

/// Returns an error if the data or the configuration are invalid, or if no form of the linear model
/// that the configuration selects is possible for the data.
fn check(data: &RunData, config: &Config) -> Result<()> {
    config.validate()?;
    data.validate()?;
    if config.model.linear {
        config.linear.forms(&data.train)?;
    }
    Ok(())
}

impl Run {
    /// Returns whether `dir` contains a run, which may be unfinished.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        dir.as_ref().join(CONFIG).exists()
    }

    /// Creates a run in `dir`. The folder is created if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the data or the configuration are invalid, or if the folder contains a
    /// run, is in use by another process, or cannot be written.
    pub fn create(
        dir: impl AsRef<Path>,
        data: impl Into<Arc<RunData>>,
        config: Config,
    ) -> Result<Self> {
        Self::create_on(Arc::new(Alone), dir, data, config)
    }

    /// Creates a run on several ranks. All ranks must make the same calls with the same arguments.
    /// The ranks divide the users, and need a shared folder, to which only rank 0 writes. With the
    /// same batch size, any number of ranks gives the same result, and a run can be resumed on a
    /// different number of ranks.
    ///
    /// A rank that gets an error must end the other ranks with [`Communicator::abort`], because
    /// they wait for it.
    ///
    /// # Errors
    /// Returns the errors of [`create`](Self::create), and [`Error::Comm`] if another rank fails.
    pub fn create_on(
        comm: Arc<dyn Communicator>,
        dir: impl AsRef<Path>,
        data: impl Into<Arc<RunData>>,
        config: Config,
    ) -> Result<Self> {
        let data = data.into();
        check(&data, &config)?;
        let folder = RunFolder::open(dir.as_ref(), comm)?;
        if folder.has(CONFIG)? {
            return Err(Error::RunExists { path: folder.path().to_owned() });
        }
        folder.write(CONFIG, |path| {
            data.save(folder.path())?;
            // The file is written last, because it marks the folder as a run.
            write_whole(path, config.to_toml()?.as_bytes())
        })?;
        Ok(Self { folder, config, data, sentence: None, linear_seconds: OnceLock::new() })
    }

    /// Resumes the run in `dir`, which must have been created with the same data and configuration.
    /// [`fit`](Self::fit) then needs the same language model and prompts.
    ///
    /// # Errors
    /// Returns an error if the folder contains no run, or a run with different data or a different
    /// configuration. Returns an error if the folder is in use by another process or cannot be
    /// written.
    pub fn resume(
        dir: impl AsRef<Path>,
        data: impl Into<Arc<RunData>>,
        config: Config,
    ) -> Result<Self> {
        Self::resume_on(Arc::new(Alone), dir, data, config)
    }

    /// Resumes a run on several ranks, under the conditions of [`create_on`](Self::create_on).
    ///
    /// # Errors
    /// Returns the errors of [`resume`](Self::resume), and [`Error::Comm`] if another rank fails.
    pub fn resume_on(
        comm: Arc<dyn Communicator>,
        dir: impl AsRef<Path>,
        data: impl Into<Arc<RunData>>,
        config: Config,
    ) -> Result<Self> {
        let data = data.into();
        check(&data, &config)?;
        let dir = dir.as_ref();
        // The check comes before the folder is opened, which would create it.
        if !comm.root_says(Self::exists(dir))? {
            return Err(Error::NoRun { path: dir.to_owned() });
        }
        let folder = RunFolder::open(dir, comm)?;
        if Config::of_run(dir)? != config {
            return Err(Error::file(
                &folder.file(CONFIG),
                "the run was started with another configuration; resume it with that one, or \
                 choose another folder",
            ));
        }
        if load_data(dir)? != *data {
            return Err(Error::file(
                &folder.file(USERS),
                "the run was started with other data or another split; choose another folder",
            ));
        }
        Ok(Self { folder, config, data, sentence: None, linear_seconds: OnceLock::new() })
    }

    /// Uses the given node embeddings instead of training them in stage 1.
    ///
    /// # Errors
    /// Returns an error if the numbers of users or items of the embeddings differ from those of the
    /// run's data, or if the folder cannot be written.
    pub fn set_nodes(&self, embeddings: &NodeEmbeddings) -> Result<()> {
        check_embeddings(embeddings, &self.data.train)?;
        self.folder.write(NODES, |path| Ok(embeddings.save(path)?))
    }

    /// Sets the encoder that [`ItemEncoder::Sentence`](crate::ItemEncoder::Sentence) selects.
    #[must_use]
    pub fn sentence_encoder(mut self, encoder: Arc<dyn TextEncoder>) -> Self {
        self.sentence = Some(Sentence(encoder));
        self
    }

    /// Uses the given vectors of the item texts instead of computing them. The method whitens the
    /// vectors of each encoder and concatenates them. If `encoders` is empty, the run has no text
    /// vectors.
    ///
    /// # Errors
    /// Returns an error if the numbers of items differ, or if the folder cannot be written.
    pub fn set_item_vectors(&self, encoders: &[ItemVectors]) -> Result<()> {
        let items = self.data.items.len();
        if let Some(other) = encoders.iter().find(|e| e.vectors().nrows() != items) {
            let (name, rows) = (other.name(), other.vectors().nrows());
            return Err(Error::Data(format!(
                "there are {rows} vectors of {name} for {items} items"
            )));
        }
        if encoders.is_empty() {
            let none = Array2::zeros((items, 0));
            return self.folder.write(VECTORS, |path| save_vectors(path, none.view()));
        }
        let (joined, whitenings) = ItemVectors::join(encoders, &self.config.item_text.whiten)?;
        self.folder.write(ENCODERS, |path| {
            for (nth, (encoder, whitening)) in encoders.iter().zip(&whitenings).enumerate() {
                whitening.save(self.folder.file(&whitening_file(nth)))?;
                if let Some(words) = encoder.fitted() {
                    words.save(self.folder.file(TF_IDF))?;
                }
            }
            let saved: Vec<_> = encoders.iter().map(ItemVectors::saved).collect();
            let saved = serde_json::to_vec_pretty(&saved).map_err(|e| Error::file(path, e))?;
            write_whole(path, &saved)
        })?;
        // The vectors are written last: if they exist, the files of the encoders exist.
        self.folder.write(VECTORS, |path| save_vectors(path, joined.view()))
    }

    /// Copies the text vectors of the run in `from`, if it has any, instead of computing them. Call
    /// this only if that run has the same items and encoders.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or written.
    pub fn copy_item_vectors(&self, from: impl AsRef<Path>) -> Result<()> {
        let from = from.as_ref();
        if !from.join(VECTORS).exists() {
            return Ok(());
        }
        let whitenings = (0..).map(whitening_file).take_while(|name| from.join(name).exists());
        let names = whitenings.chain([TF_IDF, ENCODERS, VECTORS].map(String::from));
        // The vectors are copied last: if they exist, the files of the encoders exist.
        names.filter(|name| from.join(name).exists()).try_for_each(|name| self.copy(&name, from))
    }

    /// Uses the given linear model instead of fitting one. Call this only with a model that was
    /// fitted on the run's data and text vectors.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub fn set_linear(&self, model: &LinearModel) -> Result<()> {
        self.folder.write(LINEAR, |path| Ok(model.save(path)?))
    }

    /// Copies the linear model of the run in `from` instead of fitting one. Call this only if that
    /// run has the same data, text vectors and settings of the linear model.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or written.
    pub fn copy_linear(&self, from: impl AsRef<Path>) -> Result<()> {
        let history = from.as_ref().join(HISTORY);
        // An unfinished run has no report.
        if history.exists()
            && let Some(seconds) = FitReport::read(&history)?.linear_seconds
        {
            // If several runs are copied, the duration is that of the first.
            let _ = self.linear_seconds.set(seconds);
        }
        self.copy(LINEAR, from.as_ref())
    }

    /// Copies the profiles and predictions of the run in `from` instead of generating them. Call
    /// this only if that run has the same language model, data and settings of the texts.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or written.
    pub fn copy_texts(&self, from: impl AsRef<Path>) -> Result<()> {
        self.copy(TEXTS, from.as_ref())
    }

    /// Copies the result of stage 2 from the run in `from` instead of training the stage. Call this
    /// only if that run has the same language model, data, nodes and settings of stage 2.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or written.
    pub fn copy_item_stage(&self, from: impl AsRef<Path>) -> Result<()> {
        self.copy(ALIGNED, from.as_ref())
    }

    fn copy(&self, name: &str, from: &Path) -> Result<()> {
        self.folder.write(name, |path| write_whole(path, &read(&from.join(name))?))
    }

    /// Runs all stages that are not finished, and saves the recommender. `language` may be `None`
    /// for [`Backbone::None`]. It may also be `None` without a [prompt
    /// path](crate::ModelConfig::prompt), if the text vectors exist or no language model encodes
    /// the texts.
    ///
    /// # Errors
    /// Returns an error if the checkpoint or the prompts are not those of the run, and the errors
    /// of the stages. Saved stages remain usable.
    pub fn fit(self, language: Option<&LanguageModel>) -> Result<(Recommender, FitReport)> {
        self.fit_with(language, &mut Silent)
    }

    /// Runs the stages like [`fit`](Self::fit), and reports progress. If `progress` cancels, saved
    /// stages remain, and the run can be resumed.
    ///
    /// # Errors
    /// Returns the errors of [`fit`](Self::fit), and [`Error::Cancelled`] if `progress` cancels.
    pub fn fit_with(
        self,
        language: Option<&LanguageModel>,
        progress: &mut dyn Progress<Event>,
    ) -> Result<(Recommender, FitReport)> {
        if self.folder.has(HISTORY)? {
            let Finished { model, report } = load(self.folder.path(), &self.data, language)?;
            return Ok((self.recommender(model), report));
        }
        let device = language.map_or(Device::Cpu, |l| l.llama.device().clone());
        let language = language.filter(|_| self.config.backbone != Backbone::None);
        if let Some(language) = language {
            check_layers(&self.config, language)?;
            record(&self.folder, language, self.config.model.prompt)?;
        }
        if !self.config.model.prompt {
            return self.fit_linear(language, progress);
        }
        let language = used_language(&self.config, language)?;
        let embeddings = self.embeddings(progress)?;
        let vectors = self.vectors(language.as_ref(), progress)?;
        let linear = self.linear(vectors.as_ref(), progress)?;
        let texts = self.texts(language.as_ref(), progress)?;
        let parts = Parts { embeddings, vectors, linear, device };
        let model = build(&self.config, &self.data, parts, language, texts)?;
        let report = self.align(&model, progress)?;
        Ok((self.recommender(Model::trained(model)?), report))
    }

    fn recommender(self, model: Model) -> Recommender {
        Recommender::new(model, self.data).in_folder(self.folder.path())
    }

    /// Fits the linear model of a run without a prompt path.
    fn fit_linear(
        self,
        language: Option<&LanguageModel>,
        progress: &mut dyn Progress<Event>,
    ) -> Result<(Recommender, FitReport)> {
        let to_read = self.config.language_model_reads_items()
            && has_vectors(&self.config, &self.data)
            && !self.folder.has(VECTORS)?;
        let language = if to_read { used_language(&self.config, language)? } else { None };
        let vectors = self.vectors(language.as_ref(), progress)?;
        let missing = Error::Internal("the run has no model");
        let linear = self.linear(vectors.as_ref(), progress)?.ok_or(missing)?;
        let chosen = linear.report().clone();
        let model = LinearLists::new(self.config.clone(), linear);
        let validation = validation(&model, &self.data, self.folder.comm())?;
        let mix = validation.map(|validation| Mix { factor: 0.0, validation });
        let (linear_seconds, encoders) = (self.linear_seconds(), self.encoder_names()?);
        let linear = Some(chosen);
        let report = FitReport { linear, linear_seconds, encoders, mix, ..FitReport::default() };
        self.write_history(&report)?;
        Ok((self.recommender(Model::Linear(Box::new(model))), report))
    }

    /// Runs stages 2 and 3, and chooses the factor of the correction.
    fn align(&self, model: &Glta, progress: &mut dyn Progress<Event>) -> Result<FitReport> {
        let comm = self.folder.comm();
        let state = self.folder.file(STATE);
        let aligned = self.folder.file(ALIGNED);
        let with_prompt = self.config.backbone != Backbone::None;
        let item_stage = if !self.config.item_stage.enabled || !with_prompt {
            None
        } else if self.folder.has(ALIGNED)? {
            let history = model.load(&aligned)?;
            Some(serde_json::from_str(&history).map_err(|e| Error::file(&aligned, e))?)
        } else {
            let mut stage = ItemStage::new(model, &self.data)?;
            let history = train(&mut stage, &self.config.item_stage.train, comm, &state, progress)?;
            let text = serde_json::to_string(&history).map_err(|e| Error::file(&aligned, e))?;
            self.folder.write(ALIGNED, |path| model.save(path, &text))?;
            Some(history)
        };
        if model.corrects_linear() {
            // The weights of stage 2 do not depend on users, so the correction starts at zero.
            model.head().set_zero()?;
        }
        let mut stage = UserStage::new(model, &self.data);
        let user_stage = train(&mut stage, &self.config.user_stage.train, comm, &state, progress)?;
        let mix = choose_mix(model, &self.data, comm)?;
        if let Some(mix) = &mix {
            model.set_mix(mix.factor)?;
        }
        let linear = model.linear().map(|linear| linear.report().clone());
        let (linear_seconds, encoders) = (self.linear_seconds(), self.encoder_names()?);
        let user_stage = Some(user_stage);
        let report = FitReport { item_stage, user_stage, linear, linear_seconds, encoders, mix };
        self.folder.write(MODEL, |path| model.save(path, "{}"))?;
        self.write_history(&report)?;
        self.folder.remove(STATE)?;
        Ok(report)
    }

    fn write_history(&self, report: &FitReport) -> Result<()> {
        self.folder.write(HISTORY, |path| {
            let text = serde_json::to_vec_pretty(report).map_err(|e| Error::file(path, e))?;
            write_whole(path, &text)
        })
    }

    /// Returns the node embeddings that stage 1 saved, or runs the stage.
    fn embeddings(&self, progress: &mut dyn Progress<Event>) -> Result<NodeEmbeddings> {
        if !self.folder.has(NODES)? {
            let lightgcn = LightGcn::new(self.config.graph.clone())?;
            let valid = (!self.data.valid.is_empty()).then_some(&self.data.valid);
            let comm = self.folder.comm();
            let progress = &mut |epoch: &EpochReport| progress.report(&Event::Graph(epoch.clone()));
            let trained = lightgcn.train_on(comm, None, &self.data.train, valid, progress)?;
            self.folder.write(NODES, |path| Ok(trained.embeddings.save(path)?))?;
        }
        Ok(NodeEmbeddings::load(self.folder.file(NODES))?)
    }

    /// Returns the saved or computed text vectors of the items, or `None` in a run without text
    /// vectors.
    fn vectors(
        &self,
        language: Option<&LanguageModel>,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Option<TextVectors>> {
        let there = self.folder.has(VECTORS)?;
        if !there && !has_vectors(&self.config, &self.data) {
            return Ok(None);
        }
        if !there {
            let vectors = self.encode(language, progress)?;
            self.set_item_vectors(&vectors)?;
        }
        load_vectors(&self.folder.file(VECTORS), &self.data)
    }

    /// Computes the vectors of the item texts with each encoder of the configuration.
    fn encode(
        &self,
        language: Option<&LanguageModel>,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Vec<ItemVectors>> {
        let config = &self.config.item_text;
        let texts: Vec<String> = self.data.items.iter().map(|i| i.text.clone()).collect();
        let sentence = self.sentence.as_ref().map(|Sentence(encoder)| &**encoder);
        let encoders = Encoders { language, sentence, comm: self.folder.comm() };
        let mut all = Vec::new();
        for encoder in self.config.item_encoders() {
            all.extend(encoders.encode(encoder, &texts, config, progress)?);
        }
        for path in &config.files {
            let ids = self.data.items.iter().map(|item| item.raw_id.as_str());
            all.push(ItemVectors::file(path, ids)?);
        }
        Ok(all)
    }

    fn linear_seconds(&self) -> Option<f64> {
        self.linear_seconds.get().copied()
    }

    /// Returns the names of the encoders of the run's text vectors.
    fn encoder_names(&self) -> Result<Vec<String>> {
        if !self.folder.has(ENCODERS)? {
            return Ok(Vec::new());
        }
        let path = self.folder.file(ENCODERS);
        let saved: Vec<SavedEncoder> =
            serde_json::from_slice(&read(&path)?).map_err(|e| Error::file(&path, e))?;
        Ok(saved.into_iter().map(|encoder| encoder.name).collect())
    }

    /// Returns the saved or fitted linear model. It is always read from its file, so that a resumed
    /// run has the same results as an uninterrupted one.
    fn linear(
        &self,
        vectors: Option<&TextVectors>,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Option<Arc<LinearModel>>> {
        let config = &self.config.linear;
        if !self.config.model.linear {
            return Ok(None);
        }
        if !self.folder.has(LINEAR)? {
            let started = Instant::now();
            // The model has a closed form. Rank 0 solves it while the others wait.
            self.folder.write(LINEAR, |path| {
                let RunData { train, valid, .. } = &*self.data;
                let progress = &mut |step: &LinearStep| progress.report(&Event::Linear(*step));
                let seed = self.config.seed;
                let model =
                    LinearModel::fit_with(train, Some(valid), vectors, config, seed, progress)?;
                Ok(model.save(path)?)
            })?;
            let _ = self.linear_seconds.set(started.elapsed().as_secs_f64());
        }
        let path = self.folder.file(LINEAR);
        Ok(Some(Arc::new(LinearModel::load(path, &self.data.train, vectors)?)))
    }

    fn texts(
        &self,
        language: Option<&LanguageModel>,
        progress: &mut dyn Progress<Event>,
    ) -> Result<BTreeMap<u32, UserTexts>> {
        let config = &self.config.texts;
        match language {
            Some(language) if config.profile || config.prediction => {
                report(progress, &Event::Texts { done: 0, total: self.data.users.len() })?;
                let seed = self.config.seed;
                write_texts(&self.data, language, config, seed, &self.folder, progress)
            }
            _ => Ok(BTreeMap::new()),
        }
    }
}
