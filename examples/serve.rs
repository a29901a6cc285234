//! Recommendations over HTTP from the folder of a fitted model, like `glta serve`.
//!
//! ```text
//! cargo run --release --example serve -- \
//!     --model runs/quickstart/seed-2024/glta --llm runs/quickstart/llm
//! ```

use std::process::ExitCode;

use clap::Parser;
use glta_cli::logging;
use glta_cli::serve::{self, ServeArgs};

/// Serve recommendations over HTTP: a page at /, POST /recommend, POST
/// /recommend/batch, GET /health, /metrics and /schema.json.
#[derive(Parser)]
#[command(name = "serve", version)]
struct Cli {
    #[command(flatten)]
    args: ServeArgs,
}

fn main() -> ExitCode {
    logging::init();
    serve::run(&Cli::parse().args)
}
