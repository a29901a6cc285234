//! GLTA on MovieLens (100K, 1M, or any CSV generation): raw files in, table of
//! results and a recommender out.
//!
//! ```text
//! cargo run --release --example movielens -- --data DIR --llm DIR --out DIR
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

/// Train and evaluate GLTA and its baselines on MovieLens.
#[derive(Debug, Parser)]
#[command(name = "movielens", version)]
struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

fn main() -> ExitCode {
    let args = Args::parse().pipeline;
    common::exit_on_ranks(|ranks| {
        let task = root_first(ranks, || tasks::movielens(args.data.as_deref()))?;
        run(ranks, &task, &args, args.resolve(Density::Dense, |_| ())?)?;
        Ok(())
    })
}
