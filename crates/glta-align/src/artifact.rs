//! Builds a model and loads it from a run's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use glta_graph::NodeEmbeddings;
use glta_linear::LinearModel;
use ndarray::Array2;

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
use crate::texts::{UserTexts, read_texts};
use crate::{Error, Result};

/// The language model that the backbone asks for.
pub(crate) fn used_language(
    config: &Config,
    language: Option<&LanguageModel>,
) -> Result<Option<LanguageModel>> {
    let used = language.filter(|_| config.backbone != Backbone::None);
    if let Some(language) = used {
        // Any number of layers has the same shapes, and another one gives other answers.
        let layers = language.llama.config().num_hidden_layers;
        let wanted = config.llm.layers.unwrap_or(language.whole_layers());
        if layers != wanted {
            return Err(Error::Config {
                field: "llm.layers".into(),
                problem: format!(
                    "the run uses {wanted} layers of the language model, but the one given was \
                     loaded with {layers}; load it with the run's `llm` options"
                ),
            });
        }
    }
    match (config.backbone, language) {
        (Backbone::Llm, Some(language)) => Ok(Some(language.clone())),
        (Backbone::RandomLlm, Some(language)) => Ok(Some(language.randomized(config.seed)?)),
        (Backbone::None, _) => Ok(None),
        (_, None) => Err(Error::NoLlm),
    }
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

/// Loads the model and the data that a finished [`Run`](crate::Run) saved in `dir`.
pub(crate) fn load(dir: &Path, language: Option<&LanguageModel>) -> Result<(Model, RunData)> {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let config = Config::of_run(dir)?;
    if !file(HISTORY).exists() {
        return Err(Error::file(&file(HISTORY), "missing: the run has not ended; resume it"));
    }
    let data = RunData::load(&file(ITEMS), &file(USERS))?;
    let vectors =
        has_vectors(&config, &data).then(|| load_vectors(&file(VECTORS), &data)).transpose()?;
    let linear = if config.has_linear(data.items.len()) {
        let view = vectors.as_ref().map(|v| v.view());
        Some(Arc::new(LinearModel::load(file(LINEAR), &data.train, view)?))
    } else {
        None
    };
    if let Some(linear) = linear.clone().filter(|_| !config.model.prompt) {
        return Ok((Model::Linear(LinearLists::new(config, linear)), data));
    }
    let device = language.map_or(Device::Cpu, |l| l.llama.device().clone());
    let embeddings = NodeEmbeddings::load(file(NODES))?;
    let language = used_language(&config, language)?;
    let texts = match &language {
        Some(_) if file(TEXTS).exists() => read_texts(&file(TEXTS))?,
        _ => BTreeMap::new(),
    };
    let parts = Parts { embeddings, vectors, linear, device };
    let model = build(&config, &data, parts, language, texts)?;
    model.load(&file(MODEL))?;
    Ok((Model::trained(model)?, data))
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
