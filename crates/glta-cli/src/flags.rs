//! Flags that all programs for experiments share.

use std::path::{Path, PathBuf};

use clap::Args;
use glta_align::{ItemEncoder, LanguageModel, Templates};
use glta_core::with_causes;
use glta_eval::{Density, ExperimentConfig, MetricAt, Preset};
use glta_llm::LlamaOptions;

use crate::Result;
use crate::device::device;
use crate::progress::Reporter;
use crate::ranks::{Ranks, root_first};

/// Flags that all programs for experiments share.
#[derive(Debug, Clone, Args)]
pub struct ExperimentFlags {
    /// Folder or zip archive with the publisher's raw files.
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub data: Option<PathBuf>,
    /// Folder of a GPTQ or unquantised LLaMA checkpoint, or its id on the hub, owner/name or
    /// owner/name@revision.
    #[arg(
        long,
        value_name = "DIR_OR_HUB_ID",
        default_value = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GPTQ",
        help_heading = "Models"
    )]
    pub llm: String,
    /// Folder for the results.
    #[arg(long, value_name = "DIR", default_value = "runs/latest", help_heading = "Output")]
    pub out: PathBuf,
    /// Seeds of the split and of all training; the experiment runs once for each [default: 2024]
    #[arg(long = "seed", value_name = "N", value_delimiter = ',', help_heading = "Settings")]
    pub seeds: Vec<u64>,
    /// Rule that selects held-out items: random, leave-one-out or temporal.
    #[arg(long, value_name = "METHOD", help_heading = "Data")]
    pub split: Option<String>,
    /// Share of cold items, whose interactions are all held out; the text-based models are then
    /// tuned for new items, and the table has metrics of cold items.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0, help_heading = "Data")]
    pub cold: f64,
    /// Columns of the table, such as P@5,N@10,R@20,H@10,MRR@10,MAP@10.
    #[arg(long, value_name = "NAME@K", value_delimiter = ',', help_heading = "Systems")]
    pub metrics: Vec<String>,
    /// Names of the only systems to run, as in the table; systems of --controls, --contrastive and
    /// --ablations are also allowed.
    #[arg(long, value_name = "SYSTEM", value_delimiter = ',', help_heading = "Systems")]
    pub only: Vec<String>,
    /// Device of the language model and of the training: cpu, or, with the feature cuda, cuda or
    /// cuda:N (without N, each rank of a machine uses its own GPU).
    #[arg(long, default_value = "cpu", help_heading = "Models")]
    pub device: String,
    /// Preset: full (the whole method), default (the linear model alone), complete (the paper's
    /// complete form without the linear model) or paper (its most literal reading).
    #[arg(long, default_value = "full", value_parser = preset, help_heading = "Settings")]
    pub preset: String,
    /// TOML file of settings, which is applied after the preset.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Set one field of the configuration after the preset and --config are applied, such as
    /// user_stage.train.epochs=3; the flag may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", help_heading = "Settings")]
    pub set: Vec<String>,
    /// Resume the run in --out.
    #[arg(long, help_heading = "Output")]
    pub resume: bool,
    /// Also run the controls: the linear model alone, with each single text encoder and with random
    /// weights in the language model; and the main model without a language model and with random
    /// weights in it.
    #[arg(long, help_heading = "Systems")]
    pub controls: bool,
    /// Also run the contrastive graph baselines: HCCF, LightGCN+, HCCF+, RLMRec-Con, RLMRec-Gen and
    /// AlphaRec.
    #[arg(long, help_heading = "Systems")]
    pub contrastive: bool,
    /// Folder of a sentence-transformers model, such as all-MiniLM-L6-v2; it encodes texts for the
    /// linear models and AlphaRec, and for the other contrastive models instead of the language
    /// model.
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    pub text_encoder: Option<PathBuf>,
    /// File of text vectors by raw item id, an additional encoder of the linear models and of
    /// AlphaRec: NAME.npy with NAME.npy.ids (one raw id per line), or NAME.safetensors with the
    /// metadata entry ids.
    #[arg(long = "text-vectors", value_name = "FILE", help_heading = "Models")]
    pub text_vectors: Vec<PathBuf>,
    /// TOML file of prompt templates; by default, the prompts have the form of the checkpoint's
    /// chat template; each run records its templates in prompts.toml.
    #[arg(long, value_name = "FILE", help_heading = "Models")]
    pub templates: Option<PathBuf>,
    /// Also run the paper's ablations and decoders.
    #[arg(long, help_heading = "Systems")]
    pub ablations: bool,
    /// At the end, also fit the main model on all interactions, including the held-out ones, with
    /// the chosen settings, and save it in --out/seed-N/serving for `glta serve`; with --resume,
    /// also for a finished run.
    #[arg(long, help_heading = "Output")]
    pub finish: bool,
    /// Print the statistics of the data and stop.
    #[arg(long, help_heading = "Data")]
    pub stats: bool,
    /// Print only the result.
    #[arg(long, help_heading = "Output")]
    pub quiet: bool,
}

/// Rejects an unknown preset before data are read.
fn preset(name: &str) -> std::result::Result<String, String> {
    name.parse::<Preset>().map(|_| name.to_owned()).map_err(|e| e.to_string())
}

impl Default for ExperimentFlags {
    /// Returns the flags of an empty command line.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            flags: ExperimentFlags,
        }
        <Flags as clap::Parser>::parse_from([""]).flags
    }
}

impl ExperimentFlags {
    /// Returns the configuration from preset, file and flags. `adapt` changes the preset before
    /// file and `--set` are applied.
    ///
    /// # Errors
    /// Returns an error if a name is unknown or a value is invalid.
    pub fn resolve(
        &self,
        density: Density,
        adapt: impl FnOnce(&mut ExperimentConfig),
    ) -> Result<ExperimentConfig> {
        let preset = self.preset.parse::<Preset>()?;
        let mut config = ExperimentConfig::new(preset, density);
        adapt(&mut config);
        config.hold_out_items(self.cold);
        if self.text_encoder.is_some() {
            config.glta.item_text.encoders.push(ItemEncoder::Sentence);
        }
        config.glta.item_text.files.clone_from(&self.text_vectors);
        if let Some(path) = &self.config {
            let text =
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            config
                .merge_toml(&text)
                .map_err(|e| format!("{}: {}", path.display(), with_causes(&e)))?;
        }
        if !self.seeds.is_empty() {
            config.run.seeds.clone_from(&self.seeds);
        }
        config.run.controls |= self.controls;
        config.run.contrastive |= self.contrastive;
        config.run.ablations |= self.ablations;
        if let Some(split) = &self.split {
            let method = match split.replace('-', "_").as_str() {
                "random" => "random_per_user".to_owned(),
                other => other.to_owned(),
            };
            config.set(&format!("protocol.split={method}")).map_err(|e| {
                format!("--split {split}: expected random, leave-one-out or temporal ({e})")
            })?;
        }
        if !self.metrics.is_empty() {
            let metrics = self.metrics.iter().map(|m| m.parse());
            config.protocol.metrics = metrics.collect::<std::result::Result<Vec<MetricAt>, _>>()?;
        }
        if !self.only.is_empty() {
            config.run.only.clone_from(&self.only);
        }
        for assignment in &self.set {
            config.set(assignment)?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Loads the language model, from the hub if necessary.
    ///
    /// # Errors
    /// Returns an error if the checkpoint does not exist or cannot be loaded.
    pub fn language_model(
        &self,
        options: &LlamaOptions,
        ranks: &Ranks,
        reporter: &mut Reporter,
    ) -> Result<LanguageModel> {
        // The device is parsed before the download, to reject an invalid name early.
        let device = device(&self.device)?;
        let templates = self.templates.as_ref().map(Templates::load).transpose()?;
        let fetch = || crate::fetch::checkpoint(&self.llm, reporter);
        let dir = root_first(ranks, fetch).map_err(|e| format!("--llm {e}"))?;
        let mut language = LanguageModel::load(&dir, options, &device)?;
        if let Some(templates) = templates {
            language.templates = templates;
        }
        if dir != Path::new(&self.llm) {
            // In the hub's cache the folder has the name of the commit, so the model gets the id as
            // its name.
            language.name.clone_from(&self.llm);
        }
        Ok(language)
    }
}
