//! Creates models, and loads them from the folder of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use glta_graph::NodeEmbeddings;
use glta_linear::{LinearModel, TextVectors};
use ndarray::ArrayView2;

use crate::checkpoint::recorded;
use crate::config::{Backbone, Config};
use crate::data::RunData;
use crate::files::{HISTORY, LINEAR, MODEL, NODES, TEXTS, VECTORS, read_matrix, write_matrix};
use crate::language::LanguageModel;
use crate::lists::LinearLists;
use crate::model::Glta;
use crate::nodes::Nodes;
use crate::prompts::Prompts;
use crate::report::FitReport;
use crate::texts::{UserTexts, read_texts};
use crate::trained::Model;
use crate::{Error, Result};

/// Returns the language model that the backbone of the configuration uses, if it uses one.
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

/// Returns an error if the language model has a different number of layers than the run used. Its
/// tensors would have the right shapes, but its answers would differ. Without prompts, only the
/// layers that encode item texts matter.
pub(crate) fn check_layers(config: &Config, language: &LanguageModel) -> Result<()> {
    let layers = language.llama.config().num_hidden_layers;
    let whole = language.whole_layers();
    let wanted = config.llm.layers.map_or(whole, |layers| layers.min(whole));
    let reads = config.language_model_reads_items();
    let read = if reads { wanted.min(config.item_text.language_model.depth()) } else { 0 };
    if layers == wanted || (!config.model.prompt && layers >= read) {
        return Ok(());
    }
    Err(Error::Config {
        field: "llm.layers".into(),
        problem: format!(
            "the run uses {wanted} layers of the language model, but the given model was loaded \
             with {layers}; load it with the run's `llm` options"
        ),
    })
}

/// The frozen parts of a model: graph nodes, text vectors and linear model.
pub(crate) struct Parts {
    pub(crate) embeddings: NodeEmbeddings,
    pub(crate) vectors: Option<TextVectors>,
    pub(crate) linear: Option<Arc<LinearModel>>,
    pub(crate) device: Device,
}

pub(crate) fn build(
    config: &Config,
    data: &Arc<RunData>,
    parts: Parts,
    language: Option<LanguageModel>,
    texts: BTreeMap<u32, UserTexts>,
) -> Result<Glta> {
    let prompts = language
        .map(|language| Prompts::new(language, Arc::clone(data), texts, config))
        .transpose()?;
    let Parts { embeddings, vectors, linear, device } = parts;
    let nodes = Nodes::new(embeddings, &data.train, vectors, &config.model, &device)?;
    Glta::new(config, Arc::new(nodes), linear, prompts)
}

/// The model and the report of a finished run.
pub(crate) struct Finished {
    pub(crate) model: Model,
    pub(crate) report: FitReport,
}

/// Loads the data of the run in `dir`.
pub(crate) fn load_data(dir: &Path) -> Result<RunData> {
    RunData::load(dir)
}

/// Loads a finished [`Run`](crate::Run) over `data` from `dir`. The language model and the files of
/// the prompt path are needed only if they contribute to the scores.
pub(crate) fn load(
    dir: &Path,
    data: &Arc<RunData>,
    language: Option<&LanguageModel>,
) -> Result<Finished> {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    let config = Config::of_run(dir)?;
    if !file(HISTORY).exists() {
        return Err(Error::file(&file(HISTORY), "missing, so the run has not ended; resume it"));
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
    let linear =
        || -> Result<_> { Ok(Arc::new(LinearModel::load(file(LINEAR), &data.train, None)?)) };
    let left_out = report.mix.as_ref().is_some_and(|mix| mix.factor == 0.0);
    if config.model.linear && (left_out || !config.model.prompt) {
        let model = Model::Linear(Box::new(LinearLists::new(config, linear()?)));
        return Ok(Finished { model, report });
    }
    let linear = config.model.linear.then(linear).transpose()?;
    let vectors = if file(VECTORS).exists() { load_vectors(&file(VECTORS), data)? } else { None };
    let language = used_language(&config, language.as_ref())?;
    let embeddings = NodeEmbeddings::load(file(NODES))?;
    let texts = match &language {
        Some(_) if file(TEXTS).exists() => read_texts(file(TEXTS))?,
        _ => BTreeMap::new(),
    };
    let parts = Parts { embeddings, vectors, linear, device };
    let model = build(&config, data, parts, language, texts)?;
    model.load(&file(MODEL))?;
    Ok(Finished { model: Model::trained(model)?, report })
}

/// Returns whether the items get text vectors. The configuration must use text vectors. It must
/// also name files of vectors, or name encoders while at least two items have a text.
pub(crate) fn has_vectors(config: &Config, data: &RunData) -> bool {
    let texts = data.items.iter().filter(|item| !item.text.trim().is_empty());
    let read = config.item_encoders().count() > 0 && texts.take(2).count() == 2;
    config.reads_item_texts() && (read || !config.item_text.files.is_empty())
}

/// Loads the text vectors of the items. Returns `None` if the file contains no vectors, because no
/// encoder could compute them.
pub(crate) fn load_vectors(path: &Path, data: &RunData) -> Result<Option<TextVectors>> {
    let vectors = read_matrix(path, TENSOR, data.items.len())?;
    if vectors.ncols() == 0 {
        return Ok(None);
    }
    Ok(Some(TextVectors::new(vectors)?))
}

/// Saves the text vectors of the items, `(items, dim)`.
pub(crate) fn save_vectors(path: &Path, vectors: ArrayView2<'_, f32>) -> Result<()> {
    write_matrix(path, TENSOR, vectors)
}

/// Name of the tensor in the file of text vectors.
const TENSOR: &str = "vectors";
