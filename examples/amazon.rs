//! GLTA on Amazon reviews of 2014, 2018 or 2023: raw files in, table of results
//! and a recommender out.
//!
//! ```text
//! cargo run --release --example amazon -- --data DIR --llm DIR --out DIR
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

/// Train and evaluate GLTA and its baselines on Amazon reviews.
#[derive(Debug, Parser)]
#[command(name = "amazon", version)]
struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The category to read, where the folder holds several
    #[arg(long)]
    category: Option<String>,
    /// Users and items with fewer interactions are dropped, until none is left
    #[arg(long, default_value_t = 5)]
    k_core: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    common::exit_on_ranks(|ranks| {
        let pipeline = &args.pipeline;
        let data = pipeline.data.as_deref();
        let category = args.category.as_deref();
        let task = root_first(ranks, || tasks::amazon(data, category, args.k_core))?;
        run(ranks, &task, pipeline, pipeline.resolve(Density::Sparse, |_| ())?)?;
        Ok(())
    })
}
