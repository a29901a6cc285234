//! The built-in systems.

mod alpharec;
pub(crate) mod contrastive;
pub(crate) mod ease;
pub(crate) mod glta;
pub(crate) mod lightgcn;
pub(crate) mod node_vectors;
pub(crate) mod popularity;
pub(crate) mod text;
mod trials;
pub(crate) mod variants;

use glta_align::{Config, ItemEncoder, Preset};
use glta_data::Dataset;

use crate::config::{ExperimentConfig, RunConfig};
use crate::llm_path;
use crate::reason::Reason;
use crate::system::System;
use crate::users::file_name;
use crate::{Error, Result};

/// A group of systems. A field of [`RunConfig`] enables each group except `Always`, which is
/// enabled by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Always,
    Contrastive,
    Controls,
    Ablations,
    LlmPath,
}

/// The requirements of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// The system needs a language model.
    Language,
    /// The system needs a language model or a sentence encoder.
    LanguageOrEncoder,
    /// The system needs a sentence encoder.
    Encoder,
    /// The system needs at least two items with texts.
    Texts,
}

/// A built-in system with its requirements.
pub(crate) struct Standard {
    pub(crate) group: Group,
    pub(crate) needs: Needs,
    /// The encoders of the system's text vectors.
    pub(crate) encoders: Vec<ItemEncoder>,
    /// Whether the system uses files of text vectors.
    pub(crate) files: bool,
    pub(crate) system: Box<dyn System>,
}

impl Standard {
    fn new(group: Group, needs: Needs, system: impl System + 'static) -> Self {
        Self { group, needs, encoders: Vec::new(), files: false, system: Box::new(system) }
    }

    pub(crate) fn name(&self) -> &str {
        self.system.name()
    }

    /// Returns whether the system needs a language model. `has_encoder` states whether the
    /// experiment has a sentence encoder.
    pub(crate) fn needs_language(&self, has_encoder: bool) -> bool {
        match self.needs {
            Needs::Language => true,
            Needs::LanguageOrEncoder => !has_encoder,
            _ => false,
        }
    }

    /// Returns whether the system encodes item texts with the available encoders.
    pub(crate) fn reads_texts(&self) -> bool {
        self.needs != Needs::Nothing || !self.encoders.is_empty()
    }

    /// Returns whether the system's rows depend on the sentence encoder.
    pub(crate) fn reads_by_sentence(&self) -> bool {
        self.needs == Needs::LanguageOrEncoder || self.encoders.contains(&ItemEncoder::Sentence)
    }

    /// Sets the text encoders of a configuration, and whether it names files of text vectors.
    fn reading(mut self, config: &Config) -> Self {
        self.encoders = config.item_encoders().collect();
        self.files = !config.item_text.files.is_empty();
        self
    }

    /// Returns whether `run` names the system or, if `run` names no system, enables its group.
    pub(crate) fn is_chosen(&self, run: &RunConfig) -> bool {
        if !run.only.is_empty() {
            return run.only.iter().any(|name| name == self.name());
        }
        match self.group {
            Group::Always => true,
            Group::Contrastive => run.contrastive,
            Group::Controls => run.controls,
            Group::Ablations => run.ablations,
            Group::LlmPath => run.llm_path,
        }
    }

    pub(crate) fn cannot_run(&self, dataset: &Dataset, with: Available) -> Option<Reason> {
        let Available { language, encoder, texts } = with;
        let items = dataset.n_items();
        match self.needs {
            Needs::Language if !language => Some(Reason::Language),
            Needs::LanguageOrEncoder if !language && !encoder => Some(Reason::Language),
            Needs::Encoder if !encoder => Some(Reason::Encoder),
            Needs::LanguageOrEncoder | Needs::Encoder if texts < 2 => {
                Some(Reason::Texts { items, texts })
            }
            Needs::Texts if self.files => None,
            Needs::Texts if texts < 2 => Some(Reason::Texts { items, texts }),
            Needs::Texts if !self.encoders.iter().any(|&e| with.has(e)) => Some(Reason::NoEncoder),
            _ => None,
        }
    }
}

/// The models and texts that are available to an experiment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Available {
    pub(crate) language: bool,
    pub(crate) encoder: bool,
    /// Number of items with a text.
    pub(crate) texts: usize,
}

impl Available {
    pub(crate) fn has(self, encoder: ItemEncoder) -> bool {
        match encoder {
            ItemEncoder::LanguageModel => self.language,
            ItemEncoder::Sentence => self.encoder,
            _ => true,
        }
    }
}

/// Returns the name of the main row for a preset.
pub(crate) fn main_name(preset: Preset) -> &'static str {
    match preset {
        Preset::Default => variants::LINEAR,
        Preset::Complete => variants::COMPLETE,
        Preset::Paper => "GLTA paper",
        _ => "GLTA",
    }
}

/// Returns the name of the row that the ablations change.
pub(crate) fn ablated_name(preset: Preset) -> &'static str {
    match preset {
        Preset::Paper => main_name(preset),
        _ => variants::COMPLETE,
    }
}

/// Returns all built-in systems in the order of the tables.
pub(crate) fn standard(config: &ExperimentConfig) -> Vec<Standard> {
    use Group::{Ablations, Always, Controls};
    let mut all = vec![
        Standard::new(Always, Needs::Nothing, popularity::PopularitySystem),
        Standard::new(Always, Needs::Nothing, ease::EaseSystem),
        Standard::new(Always, Needs::Texts, text::TextKnnSystem).reading(&config.glta),
        Standard::new(Always, Needs::Texts, text::EaseTextSystem).reading(&config.glta),
        Standard::new(Always, Needs::Nothing, lightgcn::LightGcnSystem),
    ];
    // If GLTA writes profiles, RLMRec uses them and therefore runs after it.
    let profiles = config.glta.texts.profile;
    if !profiles {
        all.extend(contrastive_models(&config.glta));
    }
    let variant = |group, variant: glta::Variant| {
        let config = variant.config().clone();
        let standard = Standard::new(group, variant.needs(), variant);
        if config.reads_item_texts() { standard.reading(&config) } else { standard }
    };
    all.push(variant(Always, variants::main(config)));
    if profiles {
        all.extend(contrastive_models(&config.glta));
    }
    all.extend(variants::controls(config).into_iter().map(|v| variant(Controls, v)));
    all.extend(variants::ablations(config).into_iter().map(|v| variant(Ablations, v)));
    if config.glta.model.linear {
        all.extend(llm_path::all().map(|system| {
            let needs = match system.form {
                llm_path::Form::States { .. } | llm_path::Form::Likelihood { .. } => {
                    Needs::Language
                }
                llm_path::Form::OneText => Needs::LanguageOrEncoder,
                llm_path::Form::MeanVector | llm_path::Form::Neighbours => Needs::Texts,
            };
            Standard::new(Group::LlmPath, needs, system).reading(&config.glta)
        }));
    }
    all
}

fn contrastive_models(config: &Config) -> impl Iterator<Item = Standard> {
    let models = contrastive::all().into_iter().map(|system| {
        let needs = if system.reads_texts() { Needs::LanguageOrEncoder } else { Needs::Nothing };
        Standard::new(Group::Contrastive, needs, system)
    });
    let alpharec = Standard::new(Group::Contrastive, Needs::Texts, alpharec::AlphaRecSystem);
    models.chain([alpharec.reading(config)])
}

/// Rejects unknown names, and two systems with the same name or the same file name.
pub(crate) fn check_names(only: &[String], standard: &[Standard], own: &[&str]) -> Result<()> {
    let mut names: Vec<&str> = standard.iter().map(Standard::name).collect();
    for &name in own {
        let file = file_name(name);
        if let Some(other) = names.iter().find(|other| file_name(other) == file) {
            let problem = format!("the systems {other} and {name} would have the same file name");
            return Err(Error::Config { field: "run.only", problem });
        }
        names.push(name);
    }
    match only.iter().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let problem =
                format!("there is no system `{name}`; the systems are {}", names.join(", "));
            Err(Error::Config { field: "run.only", problem })
        }
    }
}
