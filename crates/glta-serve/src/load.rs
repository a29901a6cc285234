//! A recommender from the folder of a run.

use std::path::Path;

use candle_core::Device;
use glta_align::{Backbone, Config, LanguageModel, Recommender};

use crate::{Error, Result};

/// Opens the recommender in `model`, with the checkpoint in `llm` where it was trained with a
/// language model, which then runs on `device`.
pub(crate) fn recommender(
    model: &Path,
    llm: Option<&Path>,
    device: &Device,
) -> Result<Recommender> {
    let config = Config::of_run(model)?;
    let language = match (config.backbone, llm) {
        (Backbone::None, _) => None,
        (_, Some(dir)) => Some(LanguageModel::load(dir, &config.llm, device)?),
        (_, None) => return Err(Error::NoLanguageModel { model: model.to_owned() }),
    };
    Ok(Recommender::load(model, language.as_ref())?)
}
