//! GLTA on MovieLens (100K, 1M, or any CSV generation): reads raw files, prints a table of results
//! and saves a recommender.
//!
//! ```text
//! cargo run --release --example movielens -- --data DIR --llm DIR --out DIR
//! ```

use std::process::ExitCode;

use clap::Parser;
use glta_cli::datasets::MovielensFlags;
use glta_cli::flags::ExperimentFlags;
use glta_cli::ranks::root_first;
use glta_cli::{datasets, exit_on_ranks, experiment, logging};

/// Train and evaluate GLTA and its baselines on MovieLens.
#[derive(Debug, Parser)]
#[command(name = "movielens", version)]
struct Args {
    #[command(flatten)]
    flags: ExperimentFlags,
    #[command(flatten)]
    movielens: MovielensFlags,
}

fn main() -> ExitCode {
    logging::init();
    let Args { flags, movielens } = Args::parse();
    exit_on_ranks(|ranks| {
        let source = root_first(ranks, || datasets::movielens(flags.data.as_deref(), &movielens))?;
        experiment::run(ranks, &source, &flags)?;
        Ok(())
    })
}
