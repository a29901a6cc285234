//! Recommendations over HTTP from the folder of a finished run.
//!
//! ```text
//! cargo run --release --example serve -- --model runs/quickstart/seed-2024/glta --llm runs/quickstart/llm
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "serve/api.rs"]
mod api;
// This example needs only a part of it.
#[allow(dead_code)]
mod common;
#[path = "serve/measure.rs"]
mod measure;
#[path = "serve/model.rs"]
mod model;
#[path = "serve/queue.rs"]
mod queue;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use common::Result;

/// Serve recommendations over HTTP: a page at /, POST /recommend, POST
/// /recommend/batch, GET /health, /metrics and /schema.json.
#[derive(Debug, Clone, Parser)]
#[command(name = "serve", version)]
struct Args {
    /// Folder of a finished run, such as runs/quickstart/seed-2024/glta; when
    /// another model appears there (or a link is turned to another folder), it is
    /// loaded while the old one goes on answering
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of the checkpoint that the run was trained with
    #[arg(long, value_name = "DIR")]
    llm: Option<PathBuf>,
    /// Where the language model runs: cpu, or cuda[:N] in a build with the feature cuda
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Where to listen; the default can be reached from this machine alone
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Most recommendations a request may ask for
    #[arg(long, default_value_t = 100)]
    max_k: usize,
    /// Most requests in a batch
    #[arg(long, default_value_t = 256)]
    max_requests: usize,
    /// Most items a request may name
    #[arg(long, default_value_t = 1000)]
    max_items: usize,
    /// Most bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 262_144)]
    max_body: usize,
    /// Requests that wait at most; more are answered 503
    #[arg(long, default_value_t = 1024)]
    queue: usize,
    /// Requests that go through the model together at most; 1 for one by one
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Milliseconds that a request waits for others to share a batch with
    #[arg(long, value_name = "MS", default_value_t = 2)]
    batch_wait: u64,
    /// Milliseconds after which a request is answered 504
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout: u64,
    /// Milliseconds between two looks at --model
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    watch: u64,
    /// Write the address that is listened at into this file, for port 0
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Err(error) = serve(&args) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn serve(args: &Args) -> Result<()> {
    for (name, value) in [
        ("max-k", args.max_k),
        ("max-requests", args.max_requests),
        ("max-items", args.max_items),
        ("queue", args.queue),
        ("batch", args.batch),
    ] {
        if value == 0 {
            return Err(format!("--{name} must be at least 1").into());
        }
    }
    let measures = Arc::new(measure::Measures::default());
    let shelf = Arc::new(model::Shelf::open(
        &args.model,
        args.llm.as_deref(),
        common::args::device(&args.device)?,
    )?);
    let every = Duration::from_millis(args.watch.max(10));
    model::watch(&shelf, every, &measures);
    let queue =
        queue::start(args.queue, args.batch, Duration::from_millis(args.batch_wait), &measures)?;
    let app = Arc::new(api::App {
        shelf,
        queue,
        measures,
        limits: api::Limits {
            k: args.max_k,
            requests: args.max_requests,
            items: args.max_items,
            body: args.max_body,
            timeout: Duration::from_millis(args.timeout),
        },
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .map_err(|e| format!("--listen {}: {e}", args.listen))?;
        let address = listener.local_addr()?;
        if let Some(path) = &args.address_file {
            common::report::save(path, address.to_string().as_bytes())?;
        }
        eprintln!("listening at http://{address}");
        axum::serve(listener, api::router(app)).with_graceful_shutdown(asked_to_stop()).await?;
        eprintln!("stopped: every request that had come in is answered");
        Ok(())
    })
}

/// Ctrl-C or a termination signal.
async fn asked_to_stop() {
    let interrupt = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            return interrupt.await;
        };
        tokio::select! {
            () = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
}
