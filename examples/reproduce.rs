//! The paper's result section on one data set: every system, control and ablation with the same
//! protocol, as Markdown, JSON and plots. Also `glta reproduce`.
//!
//! ```text
//! cargo run --release --example reproduce -- --dataset amazon --data DIR --llm DIR --out DIR
//! ```
//!
//! A second run with the same `--out` resumes after the last finished system and seed; a GLTA run
//! resumes from its checkpoint.

use std::process::ExitCode;

use clap::Parser;
use glta_cli::logging;
use glta_cli::reproduce::{self, ReproduceArgs};

/// Every row of the paper's tables and figures for one data set.
#[derive(Debug, Parser)]
#[command(name = "reproduce", version)]
struct Args {
    #[command(flatten)]
    reproduce: ReproduceArgs,
}

fn main() -> ExitCode {
    logging::init();
    reproduce::run(&Args::parse().reproduce)
}
