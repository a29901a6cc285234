//! The paper's result section on one data set: every system, control and
//! ablation under one protocol, as Markdown, JSON and plots.
//!
//! ```text
//! cargo run --release --example reproduce -- --dataset amazon --data DIR --llm DIR --out DIR
//! ```
//!
//! Started again on the same `--out` it goes on where it stopped, at the
//! granularity of one system and seed (a GLTA run at that of a checkpoint).

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod common;
#[path = "reproduce/paper.rs"]
mod paper;
#[path = "reproduce/tables.rs"]
mod tables;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use common::args::PipelineArgs;
use common::pipeline::run;
use common::ranks::root_first;
use common::tasks;
use glta::align::{Config, Density};
use glta::comm::Communicator;

/// Every row of the paper's tables and figures for one data set.
#[derive(Debug, Parser)]
#[command(name = "reproduce", version)]
struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The data set's kind
    #[arg(long)]
    dataset: Kind,
    /// How much is spent on each system
    #[arg(long, default_value = "full")]
    budget: Budget,
    /// The Amazon category or the Goodreads subset to read, where the folder
    /// holds several
    #[arg(long)]
    part: Option<String>,
    /// Goodreads: only books of this genre or shelf, such as history
    #[arg(long)]
    genre: Option<String>,
    /// Amazon and Goodreads: users and items with fewer interactions are dropped,
    /// until none is left
    #[arg(long, default_value_t = 5)]
    k_core: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Movielens,
    Goodreads,
    Amazon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Budget {
    /// Few epochs and two settings a graph model: a look at all rows in minutes
    Small,
    /// What each system needs to converge
    Full,
}

fn main() -> ExitCode {
    let args = Args::parse();
    common::exit_on_ranks(|ranks| {
        let data = args.pipeline.data.as_deref();
        let part = args.part.as_deref();
        let genre = args.genre.as_deref();
        let mut task = root_first(ranks, || match args.dataset {
            Kind::Movielens => tasks::movielens(data),
            Kind::Amazon => tasks::amazon(data, part, args.k_core),
            Kind::Goodreads => tasks::goodreads(data, part, genre, args.k_core),
        })?;
        let density = match args.dataset {
            Kind::Movielens => Density::Dense,
            Kind::Amazon | Kind::Goodreads => Density::Sparse,
        };
        let adapt = |config: &mut Config| {
            if args.budget == Budget::Small {
                config.graph.epochs = 60;
                config.item_stage.train.epochs = 2;
                config.user_stage.train.epochs = 2;
            }
        };
        if args.budget == Budget::Small {
            task.contrastive_epochs = Some(45);
            task.lightgcn_l2 = vec![1e-3, 1e-2];
        }
        let pipeline = PipelineArgs {
            controls: true,
            contrastive: true,
            ablations: true,
            resume: true,
            ..args.pipeline.clone()
        };
        let record = run(ranks, &task, &pipeline, args.pipeline.resolve(density, adapt)?)?;
        if args.pipeline.stats || !ranks.is_root() {
            return Ok(());
        }
        let printed = match args.dataset {
            Kind::Movielens => paper::MOVIELENS,
            Kind::Amazon => paper::AMAZON,
            Kind::Goodreads => paper::GOODREADS,
        };
        let report = tables::report(&record, &printed, &args.pipeline.out)?;
        println!("\n{report}");
        Ok(())
    })
}
