//! The whole method in less than a minute, without downloads: a generated shop, and the small GPTQ
//! LLaMA of this repository (which `tiny_llm` made). Also `glta demo`.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use std::process::ExitCode;

use clap::Parser;
use glta_cli::demo::{self, DemoArgs};
use glta_cli::logging;

/// Train and evaluate GLTA on a generated shop, with the language model of this
/// repository.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
struct Args {
    #[command(flatten)]
    demo: DemoArgs,
}

fn main() -> ExitCode {
    logging::init();
    demo::run(&Args::parse().demo)
}
