//! `glta demo`: runs the whole method in less than a minute, without downloads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use glta_data::ShopConfig;

use crate::files::{make_dir, save};
use crate::flags::ExperimentFlags;
use crate::ranks::{Ranks, on_root};
use crate::{Result, datasets, exit_on_ranks, experiment};

/// Train and evaluate GLTA on a generated shop, with the language model of this repository.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the results; an existing run is resumed.
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart", help_heading = "Output")]
    pub out: PathBuf,
    /// Number of customers of the shop.
    #[arg(long, default_value_t = ShopConfig::default().users, help_heading = "Shop")]
    pub users: usize,
    /// Number of articles of the shop.
    #[arg(long, default_value_t = ShopConfig::default().items, help_heading = "Shop")]
    pub items: usize,
    /// Seed of the split and of all training; it does not change the shop.
    #[arg(long, default_value_t = 2024, help_heading = "Settings")]
    pub seed: u64,
    /// Set one field of the configuration, such as user_stage.train.epochs=3; the flag may be
    /// repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", help_heading = "Settings")]
    pub set: Vec<String>,
    /// At the end, also fit the model on all interactions, including the held-out ones, and save it
    /// in --out/seed-N/serving for `glta serve`.
    #[arg(long, help_heading = "Output")]
    pub finish: bool,
    /// Print only the result.
    #[arg(long, help_heading = "Output")]
    pub quiet: bool,
}

/// Files of the small checkpoint that this repository contains.
const LLM: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../llm/config.json")),
    ("quantize_config.json", include_bytes!("../llm/quantize_config.json")),
    ("tokenizer.json", include_bytes!("../llm/tokenizer.json")),
    ("model.safetensors", include_bytes!("../llm/model.safetensors")),
];

/// Runs `glta demo`.
pub fn run(args: &DemoArgs) -> ExitCode {
    exit_on_ranks(|ranks| on_ranks(args, ranks))
}

fn on_ranks(args: &DemoArgs, ranks: &Ranks) -> Result<()> {
    let llm = args.out.join("llm");
    on_root(ranks, || unpack(&llm))?;
    let shop = ShopConfig { users: args.users, items: args.items, ..ShopConfig::default() };
    let flags = ExperimentFlags {
        llm: llm.to_string_lossy().into_owned(),
        out: args.out.clone(),
        seeds: vec![args.seed],
        cold: 0.1,
        set: args.set.clone(),
        resume: true,
        controls: true,
        finish: args.finish,
        quiet: args.quiet,
        ..ExperimentFlags::default()
    };
    experiment::run(ranks, &datasets::shop(&shop)?, &flags)?;
    Ok(())
}

/// Writes the checkpoint of this repository to a folder.
fn unpack(dir: &Path) -> Result<()> {
    make_dir(dir)?;
    for (name, bytes) in LLM {
        save(&dir.join(name), bytes)?;
    }
    Ok(())
}
