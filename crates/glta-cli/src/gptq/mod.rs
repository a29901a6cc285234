//! `glta gptq`: inspects, verifies, runs and makes GPTQ checkpoints of LLaMA models.

mod generate;
mod inspect;
mod model;
mod quantize;
mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{interrupt, show_error};
use generate::GenerateArgs;
use model::{LoadArgs, ModelArgs};
use quantize::QuantizeArgs;

/// Flags of `glta gptq`.
#[derive(Debug, Clone, Args)]
pub struct GptqArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Print the configuration of a checkpoint and its size in memory.
    Inspect(ModelArgs),
    /// Compare the outputs of a model with those of another implementation, which
    /// `reference.safetensors` in its folder contains (docs/gptq.md). Prints one line of JSON; exit
    /// code 1 means that an error exceeds the tolerance.
    Verify(LoadArgs),
    /// Continue prompts with generated text.
    Generate(GenerateArgs),
    /// Quantise a checkpoint, which may already be quantised.
    Quantize(QuantizeArgs),
}

/// Exit code of a failure, which differs from that of a comparison that exceeds the tolerance.
const ERROR: u8 = 2;

/// Runs `glta gptq`. Exit code 1 means that an error of a comparison exceeds the tolerance, and 2
/// that the program failed.
pub fn run(args: &GptqArgs) -> ExitCode {
    interrupt::listen();
    let passed = match &args.command {
        Command::Inspect(args) => inspect::inspect(args).map(|()| true),
        Command::Verify(args) => verify::verify(args),
        Command::Generate(args) => generate::generate(args).map(|()| true),
        Command::Quantize(args) => quantize::quantize_checkpoint(args).map(|()| true),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => show_error(&*error, ERROR).into(),
    }
}
