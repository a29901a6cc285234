//! GLTA on MovieLens (100K, 1M, or any CSV generation): raw files in, table of
//! results and a recommender out.
//!
//! ```text
//! cargo run --release --example movielens -- --data DIR --llm DIR --out DIR
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::args::PipelineArgs;
use common::fetch;
use common::pipeline::{Task, run};
use glta::align::Preset;
use glta::data::{SplitConfig, TextConfig, readers};
use glta::graph::LightGcnConfig;

/// Train and evaluate GLTA and its baselines on MovieLens.
#[derive(Debug, Parser)]
#[command(name = "movielens", version)]
struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

fn main() -> ExitCode {
    let args = Args::parse().pipeline;
    common::exit(|| {
        let data = args.data.clone().unwrap_or_else(|| PathBuf::from("data/ml-100k.zip"));
        let name = if data.to_string_lossy().contains("1m") { "ml-1m" } else { "ml-100k" };
        let url = format!("https://files.grouplens.org/datasets/movielens/{name}.zip");
        fetch::data(&data, &url)?;
        let dataset = readers::movielens(&data)?;
        // Full batches are few on a small data set; a higher rate makes up for it.
        let lightgcn = LightGcnConfig {
            learning_rate: 0.02,
            batch_size: 8192,
            epochs: 250,
            patience: 8,
            ..LightGcnConfig::default()
        };
        let config = args.resolve(|preset, config| {
            config.graph = lightgcn;
            // Four layers keep a run short; the whole model still writes texts.
            config.llm.layers = Some(4);
            if preset == Preset::Default {
                // Titles and genres of a few items add nothing that the user
                // token does not hold, and cost most of the time: see
                // docs/results.md.
                config.model.history = 0;
                config.texts.profile = false;
                config.texts.prediction = false;
            }
        })?;
        let task = Task {
            dataset,
            split: SplitConfig::default(),
            texts: TextConfig::default(),
            ease_l2: vec![100.0, 200.0, 400.0, 800.0, 1600.0],
            lightgcn_l2: vec![1e-4, 3e-4, 1e-3, 3e-3],
        };
        run(&task, &args, config)?;
        Ok(())
    })
}
