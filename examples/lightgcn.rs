//! Trains and evaluates LightGCN on a split that was published as two files, or on one file that it
//! splits itself, like `glta lightgcn`.
//!
//! ```text
//! cargo run --release --example lightgcn -- \
//!     --train train.txt --test test.txt --out runs/lightgcn
//! cargo run --release --example lightgcn -- \
//!     --layout pairs --train ratings.dat --seed 2024,2025 --out runs/ml-1m
//! ```

use std::process::ExitCode;

use clap::Parser;
use glta_cli::lightgcn::{self, LightgcnArgs};
use glta_cli::logging;

/// Train and evaluate LightGCN on split files
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: LightgcnArgs,
}

fn main() -> ExitCode {
    logging::init();
    lightgcn::run(&Cli::parse().args)
}
