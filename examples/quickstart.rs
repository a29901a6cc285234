//! The whole method in less than a minute, with nothing to download: a generated shop,
//! and a small GPTQ LLaMA that lies in this repository (`tiny_llm` made it).
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use common::args::PipelineArgs;
use common::pipeline::run;
use common::ranks::root_first;
use common::{Result, report, tasks};
use glta::align::Density;
use glta::data::ShopConfig;

/// Train and evaluate GLTA on a generated shop, with the language model of this
/// repository.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
struct Args {
    /// Folder for everything the run leaves behind; a run that is there is gone
    /// on with
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart")]
    out: PathBuf,
    /// Number of customers of the shop
    #[arg(long, default_value_t = ShopConfig::default().users)]
    users: usize,
    /// Number of its articles
    #[arg(long, default_value_t = ShopConfig::default().items)]
    items: usize,
    /// Seed of the split and of everything trained; the shop stays the same
    #[arg(long, default_value_t = 2024)]
    seed: u64,
    /// One field over the configuration, such as user_stage.train.epochs=3
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// No progress, only the result
    #[arg(long)]
    quiet: bool,
}

const LLM: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("quickstart/llm/config.json")),
    ("quantize_config.json", include_bytes!("quickstart/llm/quantize_config.json")),
    ("tokenizer.json", include_bytes!("quickstart/llm/tokenizer.json")),
    ("model.safetensors", include_bytes!("quickstart/llm/model.safetensors")),
];

fn main() -> ExitCode {
    let args = Args::parse();
    common::exit_on_ranks(|ranks| {
        let llm = root_first(ranks, || unpack(&args.out))?;
        let task = tasks::shop(&ShopConfig {
            users: args.users,
            items: args.items,
            ..ShopConfig::default()
        })?;
        let pipeline = PipelineArgs {
            llm: llm.to_string_lossy().into_owned(),
            out: args.out.clone(),
            seeds: vec![args.seed],
            cold: 0.1,
            set: args.set.clone(),
            resume: true,
            controls: true,
            quiet: args.quiet,
            ..PipelineArgs::default()
        };
        run(ranks, &task, &pipeline, pipeline.resolve(Density::Sparse, tasks::shop_preset)?)?;
        Ok(())
    })
}

/// Writes the checkpoint of this repository into a folder of `out`.
fn unpack(out: &Path) -> Result<PathBuf> {
    let dir = out.join("llm");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for (name, bytes) in LLM {
        report::save(&dir.join(name), bytes)?;
    }
    Ok(dir)
}
