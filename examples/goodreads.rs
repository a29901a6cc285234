//! GLTA on the UCSD Book Graph (Goodreads): raw files in, table of results and a
//! recommender out.
//!
//! ```text
//! cargo run --release --example goodreads -- --data DIR --llm DIR --out DIR
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::args::PipelineArgs;
use common::pipeline::{Task, run, sparse};
use glta::data::readers::{GoodreadsConfig, goodreads};

/// Train and evaluate GLTA and its baselines on Goodreads.
#[derive(Debug, Parser)]
#[command(name = "goodreads", version)]
struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The per-genre files to read, such as poetry, where the folder holds several
    #[arg(long)]
    subset: Option<String>,
    /// Only books of this genre or shelf, such as history
    #[arg(long)]
    genre: Option<String>,
    /// Users and books with fewer interactions are dropped, until none is left
    #[arg(long, default_value_t = 5)]
    k_core: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    common::exit(|| {
        let data = args.pipeline.data.as_deref().ok_or(
            "--data DIR: the folder with goodreads_books*.json.gz and \
             goodreads_interactions*.json.gz from \
             https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
        )?;
        let config = GoodreadsConfig {
            subset: args.subset.clone(),
            genre: args.genre.clone(),
            ..GoodreadsConfig::default()
        };
        let dataset = goodreads(data, &config)?.k_core(args.k_core, args.k_core);
        run(&Task::sparse(dataset), &args.pipeline, args.pipeline.resolve(sparse)?)?;
        Ok(())
    })
}
