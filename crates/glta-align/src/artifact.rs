//! Builds a model and loads it from a run's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use glta_graph::NodeEmbeddings;
use glta_linear::LinearModel;
use ndarray::Array2;

use crate::checkpoint::recorded;
use crate::config::{Backbone, Config};
use crate::data::RunData;
use crate::files::{
    HISTORY, ITEMS, LINEAR, MODEL, NODES, TEXTS, USERS, VECTORS, read_tensors, take,
};
use crate::language::LanguageModel;
use crate::lists::LinearLists;
use crate::model::Glta;
use crate::nodes::Nodes;
use crate::prompts::Prompts;
use crate::recommender::Model;
use crate::report::FitReport;
use crate::texts::{UserTexts, read_texts};
use crate::{Error, Result};

/// The language model that the backbone asks for.
pub(crate) fn used_language(
    config: &Config,
    language: Option<&LanguageModel>,
) -> Result<Option<LanguageModel>> {
    match (config.backbone, language) {
        (Backbone::None, _) => Ok(None),
        (_, None) => Err(Error::NoLlm),
        (Backbone::Llm, Some(language)) => Ok(Some(language.clone())),
        (Backbone::RandomLlm, Some(language)) => Ok(Some(language.randomized(config.seed)?)),
    }
}

/// Refuses a model that was cut otherwise: any number of layers has the same shapes, and
/// another one gives other answers.
pub(crate) fn check_layers(config: &Config, language: &LanguageModel) -> Result<()> {
    let layers = language.llama.config().num_hidden_layers;
    let wanted = config.llm.layers.unwrap_or(language.whole_layers());
    if layers == wanted {
        return Ok(());
    }
    Err(Error::Config {
        field: "llm.layers".into(),
        problem: format!(
            "the run uses {wanted} layers of the language model, but the one given was \
             loaded with {layers}; load it with the run's `llm` options"
        ),
    })
}

/// What a model is built on.
pub(crate) struct Parts {
    pub(crate) embeddings: NodeEmbeddings,
    pub(crate) vectors: Option<Array2<f32>>,
    pub(crate) linear: Option<Arc<LinearModel>>,
    pub(crate) device: Device,
}

pub(crate) fn build(
    config: &Config,
    data: &RunData,
    parts: Parts,
    language: Option<LanguageModel>,
    texts: BTreeMap<u32, UserTexts>,
) -> Result<Glta> {
    let prompts =
        language.map(|language| Prompts::new(language, &data.items, texts, config)).transpose()?;
    let nodes = Nodes::new(
        &parts.embeddings,
        &data.train,
        parts.vectors.as_ref().map(|v| v.view()),
        config.model.node_features,
        &parts.device,
    )?;
    Glta::new(config, Arc::new(nodes), parts.linear, prompts)
}

/// A finished run.
pub(crate) struct Finished {
    pub(crate) model: Model,
    pub(crate) data: RunData,
    pub(crate) report: FitReport,
}

/// Loads what a finished [`Run`](crate::Run) saved in `dir`. The path through the prompt,
/// and with it the language model, is needed only where it adds something.
pub(crate) fn load(dir: &Path, language: Option<&LanguageModel>) -> Result<Finished> {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let config = Config::of_run(dir)?;
    if !file(HISTORY).exists() {
        return Err(Error::file(&file(HISTORY), "missing: the run has not ended; resume it"));
    }
    let report = FitReport::read(&file(HISTORY))?;
    let device = language.map_or(Device::Cpu, |l| l.llama.device().clone());
    let language = match language.filter(|_| config.backbone != Backbone::None) {
        None => None,
        Some(language) => {
            check_layers(&config, language)?;
            Some(recorded(dir, language, config.model.prompt)?)
        }
    };
    let data = RunData::load(&file(ITEMS), &file(USERS))?;
    let vectors =
        has_vectors(&config, &data).then(|| load_vectors(&file(VECTORS), &data)).transpose()?;
    let linear = if config.has_linear(data.items.len()) {
        let view = vectors.as_ref().map(|v| v.view());
        Some(Arc::new(LinearModel::load(file(LINEAR), &data.train, view)?))
    } else {
        None
    };
    let left_out = report.mix.as_ref().is_some_and(|mix| mix.factor == 0.0);
    if let Some(linear) = linear.clone().filter(|_| left_out || !config.model.prompt) {
        let model = Model::Linear(LinearLists::new(config, linear));
        return Ok(Finished { model, data, report });
    }
    let language = used_language(&config, language.as_ref())?;
    let embeddings = NodeEmbeddings::load(file(NODES))?;
    let texts = match &language {
        Some(_) if file(TEXTS).exists() => read_texts(file(TEXTS))?,
        _ => BTreeMap::new(),
    };
    let parts = Parts { embeddings, vectors, linear, device };
    let model = build(&config, &data, parts, language, texts)?;
    model.load(&file(MODEL))?;
    Ok(Finished { model: Model::trained(model)?, data, report })
}

/// Whether text vectors are used, a language model reads them, and there are texts to
/// compare.
pub(crate) fn has_vectors(config: &Config, data: &RunData) -> bool {
    let texts = data.items.iter().filter(|item| !item.text.trim().is_empty());
    let read = config.backbone != Backbone::None && config.reads_item_texts();
    read && texts.take(2).count() == 2
}

pub(crate) fn load_vectors(path: &Path, data: &RunData) -> Result<Array2<f32>> {
    let (mut tensors, _) = read_tensors(path, &Device::Cpu)?;
    let width = tensors.get("vectors").and_then(|t| t.dims().get(1).copied()).unwrap_or(0);
    let shape = (data.items.len(), width);
    let vectors = take(&mut tensors, path, "vectors", &[shape.0, shape.1])?;
    Array2::from_shape_vec(shape, vectors.flatten_all()?.to_vec1()?)
        .map_err(|e| Error::file(path, e))
}
