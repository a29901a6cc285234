//! GLTA on the UCSD Book Graph (Goodreads): reads raw files, prints a table of results and saves a
//! recommender.
//!
//! ```text
//! cargo run --release --example goodreads -- --data DIR --llm DIR --out DIR
//! ```

use std::process::ExitCode;

use clap::Parser;
use glta_cli::datasets::GoodreadsFlags;
use glta_cli::flags::ExperimentFlags;
use glta_cli::ranks::root_first;
use glta_cli::{datasets, exit_on_ranks, experiment, logging};

/// Train and evaluate GLTA and its baselines on Goodreads.
#[derive(Debug, Parser)]
#[command(name = "goodreads", version)]
struct Args {
    #[command(flatten)]
    flags: ExperimentFlags,
    #[command(flatten)]
    goodreads: GoodreadsFlags,
    /// Remove users and books with fewer interactions, until none is left
    #[arg(long, default_value_t = 5)]
    k_core: usize,
}

fn main() -> ExitCode {
    logging::init();
    let Args { flags, goodreads, k_core } = Args::parse();
    exit_on_ranks(|ranks| {
        let data = flags.data.as_deref();
        let read = || datasets::goodreads(data, &goodreads, k_core);
        experiment::run(ranks, &root_first(ranks, read)?, &flags)?;
        Ok(())
    })
}
