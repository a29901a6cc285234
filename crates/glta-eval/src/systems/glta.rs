//! GLTA runs as systems.

use std::path::PathBuf;
use std::sync::Arc;

use glta_align::{Backbone, Config, FitReport, ItemEncoder, Recommender, Run};
use glta_gllm::Decoder;

use crate::Result;
use crate::error::BoxError;
use crate::event::Event;
use crate::row::Curve;
use crate::seed::Seed;
use crate::system::{Fitted, System};
use crate::systems::Needs;
use crate::systems::text::read_by;

/// A GLTA run, in its own folder within the folder of the seed.
pub(crate) struct Variant {
    name: &'static str,
    folder: &'static str,
    config: Config,
    /// Folder of a run whose texts are copied, if they exist.
    texts_of: Option<&'static str>,
    /// Folder of a run whose item-text alignment is copied, if it exists.
    item_stage_of: Option<&'static str>,
    /// Folder of a run whose linear model is copied, if it exists.
    linear_of: Option<&'static str>,
    /// The decoder that replaces the decoder of a trained run.
    decoder: Option<Decoder>,
}

impl Variant {
    pub(crate) fn new(name: &'static str, folder: &'static str, config: Config) -> Self {
        Self {
            name,
            folder,
            config,
            texts_of: None,
            item_stage_of: None,
            linear_of: None,
            decoder: None,
        }
    }

    pub(crate) fn texts_of(mut self, folder: &'static str) -> Self {
        self.texts_of = Some(folder);
        self
    }

    pub(crate) fn item_stage_of(mut self, folder: &'static str) -> Self {
        self.item_stage_of = Some(folder);
        self
    }

    pub(crate) fn linear_of(mut self, folder: &'static str) -> Self {
        self.linear_of = Some(folder);
        self
    }

    pub(crate) fn decoder(mut self, decoder: Decoder) -> Self {
        self.decoder = Some(decoder);
        self
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the requirements of the row. The linear model alone uses the available encoders.
    pub(crate) fn needs(&self) -> Needs {
        let Config { backbone, model, item_text, .. } = &self.config;
        match (backbone, &item_text.encoders[..]) {
            (Backbone::RandomLlm, _) => Needs::Language,
            (Backbone::Llm, _) if model.prompt => Needs::Language,
            (Backbone::Llm, [ItemEncoder::LanguageModel]) => Needs::Language,
            (_, [ItemEncoder::Sentence]) => Needs::Encoder,
            (_, [ItemEncoder::TfIdf]) => Needs::Texts,
            _ => Needs::Nothing,
        }
    }

    /// Trains or resumes the run, or loads it if its training has ended.
    pub(crate) fn run(&self, seed: &mut Seed<'_>) -> Result<(Recommender, FitReport)> {
        let mut config = Config { seed: seed.number(), ..self.config.clone() };
        config.item_text.encoders = seed.encoders(&config);
        let folder = seed.folder().join(self.folder);
        let data = seed.run_data()?;
        let comm = Arc::clone(seed.comm());
        let run = if comm.root_says(Run::exists(&folder))? {
            Run::resume_on(comm, &folder, data, config.clone())?
        } else {
            Run::create_on(comm, &folder, data, config.clone())?
        };
        if config.model.prompt {
            run.set_nodes(&*seed.lightgcn()?)?;
        }
        let language = match config.backbone {
            Backbone::None => seed.language,
            _ if !config.model.prompt => seed.language,
            _ => Some(seed.language()?),
        };
        if config.reads_item_texts() && !seed.has(&folder.join("text_vectors.safetensors"))? {
            run.set_item_vectors(&seed.item_vectors_of(&config)?)?;
        }
        self.copy(&run, &config, seed)?;
        let progress = &mut *seed.progress;
        Ok(run.fit_with(language, &mut |event: &glta_align::Event| {
            progress.report(&Event::Run(event))
        })?)
    }

    /// Copies results of earlier runs of the seed, so that they are computed only once.
    fn copy(&self, run: &Run, config: &Config, seed: &Seed<'_>) -> Result<()> {
        let from = |folder: Option<&str>, file: &str| -> Result<Option<PathBuf>> {
            let Some(folder) = folder.filter(|folder| *folder != self.folder) else {
                return Ok(None);
            };
            let folder = seed.folder().join(folder);
            Ok(seed.has(&folder.join(file))?.then_some(folder))
        };
        if let Some(folder) = from(self.linear_of, "linear.safetensors")? {
            run.copy_linear(folder)?;
        }
        let writes = config.texts.profile || config.texts.prediction;
        if writes && let Some(folder) = from(self.texts_of, "texts.jsonl")? {
            run.copy_texts(folder)?;
        }
        let aligns = config.backbone == Backbone::Llm && config.item_stage.enabled;
        if aligns && let Some(folder) = from(self.item_stage_of, "aligned.safetensors")? {
            run.copy_item_stage(folder)?;
        }
        Ok(())
    }
}

impl System for Variant {
    fn name(&self) -> &str {
        self.name
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        seed.note(&format!("{}, seed {}", self.name, seed.number()))?;
        let ended = seed.has(&seed.folder().join(self.folder).join("history.json"))?;
        let (recommender, report) = self.run(seed)?;
        let curve = report.user_stage.as_ref().map(|stage| Curve {
            losses: stage.losses.clone(),
            validation: stage.evaluations.clone(),
        });
        if let Some(decoder) = self.decoder {
            let recommender = recommender.with_decoder(decoder);
            let valid = recommender.validation(&**seed.comm())?;
            let fitted = Fitted::new(recommender).validation(valid);
            // If the run existed, the row of that run already has its training time.
            return Ok(if ended { fitted.seconds(0.0) } else { learned(fitted, curve) });
        }
        let fitted = learned(Fitted::new(recommender).validation(report.validation()), curve);
        let encoders = report.encoders.clone();
        let fitted = settings(fitted, &self.config, report, self.linear_of.is_some());
        Ok(if self.config.reads_item_texts() {
            read_by(fitted, &encoders, &seed.left_out(&self.config)?)
        } else {
            fitted
        })
    }
}

fn learned(fitted: Fitted, curve: Option<Curve>) -> Fitted {
    match curve {
        None => fitted,
        Some(curve) => fitted.curve(curve),
    }
}

/// Records the settings that the run chose on validation data. `copied` states whether the linear
/// model was copied from a different run.
fn settings(mut fitted: Fitted, config: &Config, report: FitReport, copied: bool) -> Fitted {
    if let Some(accuracy) = report.item_stage.and_then(|s| s.best()) {
        fitted = fitted
            .setting("item_text_accuracy", accuracy)
            .setting("item_text_chance", 1.0 / config.item_stage.items as f64);
    }
    if let Some(linear) = report.linear {
        if let Some(seconds) = report.linear_seconds.filter(|_| copied) {
            fitted = fitted.seconds(seconds);
        }
        fitted = fitted
            .setting("linear", &linear)
            .setting("correction", report.mix.map_or(1.0, |mix| mix.factor));
    }
    fitted
}
