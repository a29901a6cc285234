//! The configurations of GLTA's rows: the main row, its controls, and the paper's ablations.

use glta_align::{Backbone, Config, ItemEncoder, Preset, TargetLoss};
use glta_gllm::Decoder;

use super::glta::Variant;
use super::{ablated_name, main_name};
use crate::config::ExperimentConfig;

/// Name of the row of the paper's complete form.
pub(crate) const COMPLETE: &str = "GLTA complete";
/// Name of the row of the linear model alone.
pub(crate) const LINEAR: &str = "Linear";
/// Folder of the run of the main row.
pub(crate) const MAIN_FOLDER: &str = "glta";
/// Folder of the run that the ablations change, if it is not the main run.
const COMPLETE_FOLDER: &str = "complete";

/// Returns the main row of the preset.
pub(crate) fn main(config: &ExperimentConfig) -> Variant {
    Variant::new(main_name(config.preset), MAIN_FOLDER, config.glta.clone())
}

/// Returns the row of the linear model alone.
pub(crate) fn linear(config: &ExperimentConfig) -> Variant {
    if config.preset == Preset::Default {
        return main(config);
    }
    let mut linear = config.glta.clone();
    linear.model.prompt = false;
    Variant::new(LINEAR, "linear", linear).linear_of(MAIN_FOLDER)
}

/// Returns the controls: the linear model alone, with each text encoder alone, and with a language
/// model that has random weights; the main row without a language model, and with one that has
/// random weights.
pub(crate) fn controls(config: &ExperimentConfig) -> Vec<Variant> {
    let base = &config.glta;
    let random = |name, folder, base: &Config| {
        let config = Config { backbone: Backbone::RandomLlm, ..base.clone() };
        // Reuse the texts, so that only the weights differ.
        Variant::new(name, folder, config).texts_of(MAIN_FOLDER)
    };
    let mut all = Vec::new();
    if base.model.linear {
        let mut linear = base.clone();
        linear.model.prompt = false;
        if config.preset != Preset::Default {
            all.push(self::linear(config));
        }
        for (name, folder, encoder) in [
            ("Linear LLM", "linear-llm", ItemEncoder::LanguageModel),
            ("Linear TF-IDF", "linear-tf-idf", ItemEncoder::TfIdf),
            ("Linear sentence", "linear-sentence", ItemEncoder::Sentence),
        ] {
            let encoders = &base.item_text.encoders;
            // A single encoder without files would repeat the row of all encoders.
            let alone = encoders.len() > 1 || !base.item_text.files.is_empty();
            if alone && encoders.contains(&encoder) {
                let mut one = linear.clone();
                (one.item_text.encoders, one.item_text.files) = (vec![encoder], Vec::new());
                all.push(Variant::new(name, folder, one));
            }
        }
        if linear.item_text.encoders.contains(&ItemEncoder::LanguageModel) {
            all.push(random("Linear random LLM", "linear-random-llm", &linear));
        }
    }
    if config.preset != Preset::Default {
        let mut none = Config { backbone: Backbone::None, ..base.clone() };
        // Without prompts, the user token can only be in the slot input.
        none.model.slot_user_token = true;
        all.push(Variant::new("GLTA no LLM", "glta-no-llm", none));
        all.push(random("GLTA random LLM", "glta-random-llm", base));
    }
    all
}

/// Returns the paper's ablations: its complete form without one part each (figure 3, table 3), the
/// autoregressive form and the decoders (figure 4). With the preset `paper`, the ablations change
/// the main row.
pub(crate) fn ablations(config: &ExperimentConfig) -> Vec<Variant> {
    let (base, folder) = match config.preset {
        Preset::Paper | Preset::Complete => (config.glta.clone(), MAIN_FOLDER),
        _ => (config.glta.complete(), COMPLETE_FOLDER),
    };
    let name = ablated_name(config.preset);
    let without = |system, own_folder, change: fn(&mut Config)| {
        let mut config = base.clone();
        change(&mut config);
        Variant::new(system, own_folder, config).texts_of(folder).item_stage_of(folder)
    };
    let decoder = |system, decoder| Variant::new(system, folder, base.clone()).decoder(decoder);
    let mut all = Vec::new();
    if name != main_name(config.preset) {
        all.push(Variant::new(name, folder, base.clone()));
    }
    all.extend([
        decoder("GLTA FL", Decoder::FirstLogit),
        decoder("GLTA MeanSlots", Decoder::MeanSlots),
        without("GLTA w/o IA", "without-ia", |c| c.item_stage.enabled = false),
        without("GLTA w/o UA", "without-ua", |c| {
            c.model.user_id_text = true;
            c.model.slot_user_token = false;
        }),
        without("GLTA w/o PF", "without-pf", |c| c.texts.profile = false),
        without("GLTA w/o PD", "without-pd", |c| c.texts.prediction = false),
        without("GLTA w/o both", "without-both", |c| {
            c.texts.profile = false;
            c.texts.prediction = false;
        }),
        without("GLTA AR", "ar", |c| {
            c.model.autoregressive = true;
            c.user_stage.loss = TargetLoss::SampledSlots;
        }),
    ]);
    all
}
