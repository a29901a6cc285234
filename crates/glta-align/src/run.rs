//! A run: its folder, its stages in order, and what is left when it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use glta_graph::{LightGcn, NodeEmbeddings};
use serde::{Deserialize, Serialize};

use crate::config::{Backbone, Config};
use crate::data::RunData;
use crate::files::{
    CONFIG, ITEMS, MODEL, NODES, RunFolder, STATE, TEXTS, USERS, read_tensors, read_text,
    write_whole,
};
use crate::language::LanguageModel;
use crate::model::Glta;
use crate::nodes::Nodes;
use crate::progress::{Event, Progress, report};
use crate::prompts::Prompts;
use crate::recommender::Recommender;
use crate::stages::{ItemStage, UserStage};
use crate::texts::{UserTexts, read_texts, write_texts};
use crate::trainer::{StageHistory, train};
use crate::{Error, Result};

/// Weights after stage 2, while stage 3 is under way.
const ALIGNED: &str = "aligned.safetensors";
/// What the stages reported, beside the model.
const HISTORY: &str = "history.json";

/// Training in one folder. A run that was broken off, at whatever moment and
/// however, is opened again with `resume` and ends with the same numbers as an
/// unbroken one on the same number of threads.
#[derive(Debug)]
pub struct Run {
    folder: RunFolder,
    config: Config,
    data: RunData,
}

/// What the stages of a run reported.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitReport {
    /// Stage 2; its metric is the matching accuracy among the items shown.
    pub item_stage: Option<StageHistory>,
    /// Stage 3; its metric is N@10 on the validation items.
    pub user_stage: StageHistory,
}

impl Run {
    /// Starts a run in `dir`, or goes on with the one that is there if `resume`
    /// is set.
    ///
    /// # Errors
    /// A folder with a run when `resume` is not set, one of another
    /// configuration or other data when it is, a folder in use by another
    /// process or one that cannot be written.
    pub fn open(
        dir: impl AsRef<Path>,
        config: Config,
        data: RunData,
        resume: bool,
    ) -> Result<Self> {
        config.validate()?;
        data.validate()?;
        let folder = RunFolder::open(dir.as_ref())?;
        if folder.has(CONFIG) {
            if !resume {
                return Err(Error::RunExists { path: folder.path().to_owned() });
            }
            let path = folder.file(CONFIG);
            let saved = Config::from_toml(&read_text(&path)?).map_err(|e| Error::file(&path, e))?;
            if saved != config {
                return Err(Error::file(
                    &path,
                    "the run was started with another configuration; resume it with that one or choose another folder",
                ));
            }
            let saved = RunData::load(&folder.file(ITEMS), &folder.file(USERS))?;
            if saved != data {
                return Err(Error::file(
                    &folder.file(USERS),
                    "the run was started with other data or another split; choose another folder",
                ));
            }
        } else {
            data.save(&folder.file(ITEMS), &folder.file(USERS))?;
            // Last, because it marks the folder as a run.
            write_whole(&folder.file(CONFIG), config.to_toml()?.as_bytes())?;
        }
        Ok(Self { folder, config, data })
    }

    /// Uses these node embeddings instead of training them in stage 1.
    ///
    /// # Errors
    /// Embeddings that do not fit the data, a folder that cannot be written.
    pub fn set_nodes(&self, embeddings: &NodeEmbeddings) -> Result<()> {
        Nodes::new(embeddings, &self.data.train, &Device::Cpu)?;
        Ok(embeddings.save(self.folder.file(NODES))?)
    }

    /// Uses the texts of another run of the same model, data and settings.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn copy_texts(&self, from: &Path) -> Result<()> {
        let bytes = crate::files::read(&from.join(TEXTS))?;
        write_whole(&self.folder.file(TEXTS), &bytes)
    }

    /// Runs all stages that are not done yet and saves the recommender. Without
    /// a language model only [`Backbone::None`] can be trained.
    ///
    /// # Errors
    /// Whatever goes wrong in a stage; what was saved before stays usable.
    pub fn fit(
        self,
        language: Option<&LanguageModel>,
        progress: &mut Progress<'_>,
    ) -> Result<(Recommender, FitReport)> {
        let nodes = self.nodes(language, progress)?;
        let language = used_language(&self.config, language)?;
        let texts = self.texts(language.as_ref(), progress)?;
        let model = build(&self.config, &self.data, nodes, language, texts)?;
        let report = if self.folder.has(MODEL) {
            model.load(&self.folder.file(MODEL))?;
            self.read_history()?
        } else {
            self.align(&model, progress)?
        };
        Ok((Recommender::new(model, self.data), report))
    }

    /// Stages 2 and 3.
    fn align(&self, model: &Glta, progress: &mut Progress<'_>) -> Result<FitReport> {
        let state = self.folder.file(STATE);
        let aligned = self.folder.file(ALIGNED);
        let with_prompt = self.config.backbone != Backbone::None;
        let item_stage = if !self.config.item_stage.enabled || !with_prompt {
            None
        } else if aligned.exists() {
            let (tensors, history) = read_tensors(&aligned, &Device::Cpu)?;
            drop(tensors);
            model.load(&aligned)?;
            Some(serde_json::from_str(&history).map_err(|e| Error::file(&aligned, e))?)
        } else {
            let mut stage = ItemStage::new(model, &self.data)?;
            let history = train(&mut stage, &self.config.item_stage.train, &state, progress)?;
            let text = serde_json::to_string(&history).map_err(|e| Error::file(&aligned, e))?;
            model.save(&aligned, &text)?;
            Some(history)
        };
        let mut stage = UserStage::new(model, &self.data);
        let user_stage = train(&mut stage, &self.config.user_stage.train, &state, progress)?;
        let report = FitReport { item_stage, user_stage };
        let path = self.folder.file(HISTORY);
        let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::file(&path, e))?;
        write_whole(&path, &text)?;
        model.save(&self.folder.file(MODEL), "{}")?;
        self.folder.remove(STATE)?;
        self.folder.remove(ALIGNED)?;
        Ok(report)
    }

    fn read_history(&self) -> Result<FitReport> {
        let path = self.folder.file(HISTORY);
        serde_json::from_str(&read_text(&path)?).map_err(|e| Error::file(&path, e))
    }

    /// Stage 1, unless its result is there.
    fn nodes(
        &self,
        language: Option<&LanguageModel>,
        progress: &mut Progress<'_>,
    ) -> Result<Arc<Nodes>> {
        let path = self.folder.file(NODES);
        if !path.exists() {
            let lightgcn = LightGcn::new(self.config.graph.clone())?;
            let valid = (!self.data.valid.is_empty()).then_some(&self.data.valid);
            let trained = lightgcn
                .train(&self.data.train, valid, &mut |epoch| progress(&Event::Graph(epoch)))?;
            trained.embeddings.save(&path)?;
        }
        let device = language.map_or(Device::Cpu, |l| l.llama.device().clone());
        load_nodes(&path, &self.data, &device)
    }

    fn texts(
        &self,
        language: Option<&LanguageModel>,
        progress: &mut Progress<'_>,
    ) -> Result<BTreeMap<u32, UserTexts>> {
        let config = &self.config.texts;
        match language {
            Some(language) if config.profile || config.prediction => {
                report(progress, &Event::Texts { done: 0, total: self.data.users.len() })?;
                let path = self.folder.file(TEXTS);
                write_texts(&self.data, language, config, self.config.seed, &path, progress)
            }
            _ => Ok(BTreeMap::new()),
        }
    }
}

/// The language model that the backbone asks for.
fn used_language(
    config: &Config,
    language: Option<&LanguageModel>,
) -> Result<Option<LanguageModel>> {
    match (config.backbone, language) {
        (Backbone::Llm, Some(language)) => Ok(Some(language.clone())),
        (Backbone::RandomLlm, Some(language)) => Ok(Some(language.randomized(config.seed)?)),
        (Backbone::None, _) => Ok(None),
        (_, None) => Err(Error::NoLlm),
    }
}

fn build(
    config: &Config,
    data: &RunData,
    nodes: Arc<Nodes>,
    language: Option<LanguageModel>,
    texts: BTreeMap<u32, UserTexts>,
) -> Result<Glta> {
    let prompts =
        language.map(|language| Prompts::new(language, &data.items, texts, config)).transpose()?;
    Glta::new(config, nodes, prompts)
}

/// Loads what [`Run::fit`] left in a folder.
pub(crate) fn load(dir: &Path, language: Option<&LanguageModel>) -> Result<(Glta, RunData)> {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let config = file(CONFIG);
    let config = Config::from_toml(&read_text(&config)?).map_err(|e| Error::file(&config, e))?;
    if !file(MODEL).exists() {
        return Err(Error::file(&file(MODEL), "missing: the run has not ended; resume it"));
    }
    let data = RunData::load(&file(ITEMS), &file(USERS))?;
    let device = language.map_or(Device::Cpu, |l| l.llama.device().clone());
    let nodes = load_nodes(&file(NODES), &data, &device)?;
    let language = used_language(&config, language)?;
    let texts = match &language {
        Some(_) if file(TEXTS).exists() => read_texts(&file(TEXTS))?,
        _ => BTreeMap::new(),
    };
    let model = build(&config, &data, nodes, language, texts)?;
    model.load(&file(MODEL))?;
    Ok((model, data))
}

fn load_nodes(path: &Path, data: &RunData, device: &Device) -> Result<Arc<Nodes>> {
    Ok(Arc::new(Nodes::new(&NodeEmbeddings::load(path)?, &data.train, device)?))
}
