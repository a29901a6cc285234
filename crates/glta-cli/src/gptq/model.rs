//! Flags for the checkpoint, its precision and its device.

use std::path::{Path, PathBuf};

use clap::Args;
use glta_llm::{Llama, LlamaOptions, Precision};

use crate::Result;
use crate::device::device;
use crate::fetch::checkpoint;
use crate::progress::Reporter;

/// Flags that name a checkpoint.
#[derive(Debug, Clone, Args)]
pub(super) struct ModelArgs {
    /// Folder with config.json and safetensors weights, or its id on the hub, owner/name or
    /// owner/name@revision.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    model: String,
    /// Print only the result.
    #[arg(long)]
    pub(super) quiet: bool,
}

impl ModelArgs {
    /// Returns the folder of the checkpoint, which is downloaded if necessary.
    pub(super) fn dir(&self) -> Result<PathBuf> {
        checkpoint(&self.model, &mut Reporter::new(self.quiet))
            .map_err(|e| format!("--model {e}").into())
    }
}

/// Flags of a checkpoint that is loaded: the model, the precision of its products and the device.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Type of the products with quantised weights: f32 or bf16; on a GPU also f16.
    #[arg(long, default_value = "f32", value_parser = precision)]
    pub(super) precision: Precision,
    /// Device: cpu, or cuda[:N] with the feature cuda.
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl LoadArgs {
    /// Loads the checkpoint in `dir`.
    pub(super) fn load(&self, dir: &Path) -> Result<Llama> {
        let options = LlamaOptions { precision: self.precision, ..Default::default() };
        Ok(Llama::load(dir, &options, &device(&self.device)?)?)
    }
}

fn precision(name: &str) -> std::result::Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        "f16" => Ok(Precision::F16),
        _ => Err("expected f32, bf16 or f16".into()),
    }
}
