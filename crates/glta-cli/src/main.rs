//! The program `glta`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "serve")]
use glta_cli::serve::{self, ServeArgs};
use glta_cli::{
    gptq::{self, GptqArgs},
    lightgcn::{self, LightgcnArgs},
    logging,
};

/// Train, evaluate and serve recommenders with a frozen language model.
#[derive(Parser)]
#[command(name = "glta", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant for each module with a subcommand.
#[derive(Subcommand)]
enum Command {
    /// Inspect, verify, run and make GPTQ checkpoints of LLaMA models.
    Gptq(GptqArgs),
    /// Train and evaluate LightGCN on files of interactions.
    Lightgcn(LightgcnArgs),
    /// Serve recommendations over HTTP.
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
}

fn main() -> ExitCode {
    logging::init();
    match Cli::parse().command {
        Command::Gptq(args) => gptq::run(&args),
        Command::Lightgcn(args) => lightgcn::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
    }
}
