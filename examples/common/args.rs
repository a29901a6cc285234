use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;
use glta::align::{Config, Density, LanguageModel, Preset};
use glta::data::SplitConfig;
use glta::llm::LlamaOptions;

use super::Result;
use super::progress::Reporter;
use super::ranks::{Ranks, place, root_first};

/// Flags of every pipeline example.
#[derive(Debug, Clone, Args)]
pub struct PipelineArgs {
    /// Folder or zip archive with the publisher's raw files
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Folder of a GPTQ (or plain) LLaMA checkpoint, or its id on the hub,
    /// owner/name or owner/name@revision
    #[arg(
        long,
        value_name = "DIR_OR_HUB_ID",
        default_value = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GPTQ"
    )]
    pub llm: String,
    /// Folder for everything the run leaves behind
    #[arg(long, value_name = "DIR", default_value = "runs/latest")]
    pub out: PathBuf,
    /// Seeds of the split and of everything trained; several are run one after
    /// the other
    #[arg(long = "seed", value_name = "N", value_delimiter = ',', default_value = "2024")]
    pub seeds: Vec<u64>,
    /// Share of the items that nothing is trained on, to be recommended as new
    /// ones: the table then also shows how cold and warm items fare
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    pub cold: f64,
    /// Where language model and training run: cpu, or cuda[:N] in a build with the
    /// feature cuda (without N each rank of a machine takes one)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// full (the whole method), default (the linear model alone), complete (the paper's
    /// complete form) or paper (its literal reading)
    #[arg(long, default_value = "full")]
    pub preset: String,
    /// TOML file over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One field over preset and file, such as user_stage.train.epochs=3
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Go on with the run in --out
    #[arg(long)]
    pub resume: bool,
    /// Also run the controls: the same model without a language model, and with
    /// a randomly initialised one
    #[arg(long)]
    pub controls: bool,
    /// Also run the contrastive graph baselines: HCCF, LightGCN+, HCCF+, RLMRec-Con
    /// and RLMRec-Gen
    #[arg(long)]
    pub contrastive: bool,
    /// Sentence encoder for their texts: a sentence-transformers folder, such as
    /// all-MiniLM-L6-v2; without it, the language model's mean hidden states
    #[arg(long, value_name = "DIR")]
    pub text_encoder: Option<PathBuf>,
    /// Also run the paper's ablations and decoders
    #[arg(long)]
    pub ablations: bool,
    /// Stop after the data and print its statistics
    #[arg(long)]
    pub stats: bool,
    /// No progress, only the result
    #[arg(long)]
    pub quiet: bool,
}

impl Default for PipelineArgs {
    /// What a command line without flags gives.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            flags: PipelineArgs,
        }
        <Flags as clap::Parser>::parse_from([""]).flags
    }
}

impl PipelineArgs {
    /// The configuration that preset, file and flags make; `adapt` fits it further to
    /// the data set.
    pub fn resolve(&self, density: Density, adapt: impl FnOnce(&mut Config)) -> Result<Config> {
        let mut config = Config::preset(self.preset.parse::<Preset>()?, density);
        adapt(&mut config);
        config.linear.new_items = self.new_items();
        if let Some(path) = &self.config {
            let text =
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            config.merge_toml(&text)?;
        }
        for assignment in &self.set {
            config.set(assignment)?;
        }
        config.validate()?;
        Ok(config)
    }

    /// The share of new items among those that settings are chosen on which would make their
    /// share of the validation items what it is of the test items, were the split's ratios
    /// not rounded for each user.
    fn new_items(&self) -> f64 {
        let SplitConfig { test_ratio, valid_ratio, .. } = SplitConfig::default();
        // What cannot be a share is for the split to refuse.
        let cold = if (0.0..1.0).contains(&self.cold) { self.cold } else { 0.0 };
        let odds = cold / (1.0 - cold) * valid_ratio / test_ratio;
        odds / (1.0 + odds)
    }

    pub fn language_model(
        &self,
        options: &LlamaOptions,
        ranks: &Ranks,
        reporter: &mut Reporter,
    ) -> Result<LanguageModel> {
        let fetch = || super::fetch::checkpoint(&self.llm, reporter);
        let dir = root_first(ranks, fetch).map_err(|e| format!("--llm {e}"))?;
        let mut language = LanguageModel::load(&dir, options, &device(&self.device)?)?;
        if dir != Path::new(&self.llm) {
            // Its folder in the cache is called by the commit.
            language.name.clone_from(&self.llm);
        }
        Ok(language)
    }
}

/// The device of `--device`: cpu, cuda:N, or cuda, which of several ranks on a machine gives each
/// its own. Threads share a GPU's queue, so that one may
/// load what another runs.
pub fn device(name: &str) -> Result<Device> {
    let wrong = || format!("--device {name}: expected cpu, cuda or cuda:N");
    let n = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => place(),
        Some(("cuda", n)) => n.parse().map_err(|_| wrong())?,
        _ => return Err(wrong().into()),
    };
    Ok(Device::new_cuda_with_stream(n)?)
}
