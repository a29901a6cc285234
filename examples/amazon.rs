//! GLTA on Amazon reviews of 2014, 2018 or 2023: reads raw files, prints a table of results and
//! saves a recommender.
//!
//! ```text
//! cargo run --release --example amazon -- --data DIR --llm DIR --out DIR
//! ```

use std::process::ExitCode;

use clap::Parser;
use glta_cli::datasets::AmazonFlags;
use glta_cli::flags::ExperimentFlags;
use glta_cli::ranks::root_first;
use glta_cli::{datasets, exit_on_ranks, experiment, logging};

/// Train and evaluate GLTA and its baselines on Amazon reviews.
#[derive(Debug, Parser)]
#[command(name = "amazon", version)]
struct Args {
    #[command(flatten)]
    flags: ExperimentFlags,
    #[command(flatten)]
    amazon: AmazonFlags,
    /// Remove users and items with fewer interactions, until none is left
    #[arg(long, default_value_t = 5)]
    k_core: usize,
}

fn main() -> ExitCode {
    logging::init();
    let Args { flags, amazon, k_core } = Args::parse();
    exit_on_ranks(|ranks| {
        let data = flags.data.as_deref();
        let source = root_first(ranks, || datasets::amazon(data, &amazon, k_core))?;
        experiment::run(ranks, &source, &flags)?;
        Ok(())
    })
}
