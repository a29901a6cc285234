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
use common::pipeline::run;
use common::ranks::root_first;
use common::tasks;
use glta::align::Density;

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
    common::exit_on_ranks(|ranks| {
        let pipeline = &args.pipeline;
        let (data, subset) = (pipeline.data.as_deref(), args.subset.as_deref());
        let genre = args.genre.as_deref();
        let task = root_first(ranks, || tasks::goodreads(data, subset, genre, args.k_core))?;
        run(ranks, &task, pipeline, pipeline.resolve(Density::Sparse, |_| ())?)?;
        Ok(())
    })
}
