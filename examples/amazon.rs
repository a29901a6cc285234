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
use common::pipeline::{Task, run, sparse};
use glta::data::readers::{AmazonConfig, amazon};

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
    common::exit(|| {
        let data = args.pipeline.data.as_deref().ok_or(
            "--data DIR: the folder with a category's reviews and metadata, such as \
             Gift_Cards_5.json.gz and meta_Gift_Cards.json.gz from \
             https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        )?;
        let config = AmazonConfig { category: args.category.clone(), ..AmazonConfig::default() };
        let dataset = amazon(data, &config)?.k_core(args.k_core, args.k_core);
        run(&Task::sparse(dataset), &args.pipeline, args.pipeline.resolve(sparse)?)?;
        Ok(())
    })
}
