//! Inspects, verifies, runs and makes GPTQ checkpoints of LLaMA models, like `glta gptq`.
//!
//! ```text
//! cargo run --release --example gptq -- inspect  --model DIR
//! cargo run --release --example gptq -- verify   --model DIR
//! cargo run --release --example gptq -- generate --model DIR --prompt "Once upon a time"
//! cargo run --release --example gptq -- quantize --model DIR --calibration FILE --out DIR
//! ```
//!
//! Instead of DIR, `--model` accepts an id on the Hugging Face Hub.

use std::process::ExitCode;

use clap::Parser;
use glta_cli::gptq::{self, GptqArgs};
use glta_cli::logging;

/// Inspects, verifies, runs and makes GPTQ checkpoints of LLaMA models.
#[derive(Parser)]
#[command(name = "gptq", version)]
struct Cli {
    #[command(flatten)]
    args: GptqArgs,
}

fn main() -> ExitCode {
    logging::init();
    gptq::run(&Cli::parse().args)
}
