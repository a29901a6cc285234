//! A recommender from the folder of a run.

use std::path::Path;

use candle_core::Device;
use glta_align::{Backbone, Config, LanguageModel, Recommender};

use crate::{Error, Result};

/// Opens the recommender in `model`. The checkpoint in `llm`, which then runs on `device`, is
/// needed where its answers run a prompt.
pub(crate) fn recommender(
    model: &Path,
    llm: Option<&Path>,
    device: &Device,
) -> Result<Recommender> {
    let config = Config::of_run(model)?;
    match llm {
        Some(dir) if config.backbone != Backbone::None => {
            let language = LanguageModel::load(dir, &config.llm, device)?;
            Ok(Recommender::open_with(model, &language)?)
        }
        _ => match Recommender::open(model) {
            Err(glta_align::Error::NoLlm) => {
                Err(Error::NoLanguageModel { model: model.to_owned() })
            }
            opened => Ok(opened?),
        },
    }
}
