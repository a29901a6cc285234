//! `glta serve`: recommendations over HTTP from the folder of a finished run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use glta_serve::{ServeConfig, Server, Service};

use crate::device::device;
use crate::files::save;
use crate::output::errln;
use crate::{Result, show_error};

/// Flags of `glta serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Folder of a finished run, such as runs/quickstart/seed-2024/glta; when
    /// another model appears there (or a link points to another folder), it is
    /// loaded while the old one still answers
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    model: PathBuf,
    /// Folder of the checkpoint that the run was trained with; read only where the run's
    /// answers need it
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    llm: Option<PathBuf>,
    /// Where the language model runs: cpu, or cuda[:N] in a build with the feature cuda
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    device: String,
    /// Where to listen; the default can be reached from this machine alone
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value_t = ServeConfig::default().listen,
        help_heading = "Address"
    )]
    listen: SocketAddr,
    /// Most recommendations a request may ask for
    #[arg(long, default_value_t = ServeConfig::default().max_k, help_heading = "Limits")]
    max_k: usize,
    /// Most requests in a batch
    #[arg(long, default_value_t = ServeConfig::default().max_requests, help_heading = "Limits")]
    max_requests: usize,
    /// Most items a request may name
    #[arg(long, default_value_t = ServeConfig::default().max_items, help_heading = "Limits")]
    max_items: usize,
    /// Most bytes of a request's body
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = ServeConfig::default().max_body,
        help_heading = "Limits"
    )]
    max_body: usize,
    /// Requests that wait at most; more are answered 503
    #[arg(long, default_value_t = ServeConfig::default().queue, help_heading = "Limits")]
    queue: usize,
    /// Requests that go through the model together at most; 1 for one by one
    #[arg(long, default_value_t = ServeConfig::default().batch, help_heading = "Limits")]
    batch: usize,
    /// Milliseconds that a request waits for others to share a batch with
    #[arg(
        long,
        value_name = "MS",
        default_value_t = ServeConfig::default().batch_wait_ms,
        help_heading = "Limits"
    )]
    batch_wait: u64,
    /// Milliseconds after which a request is answered 504
    #[arg(
        long,
        value_name = "MS",
        default_value_t = ServeConfig::default().timeout_ms,
        help_heading = "Limits"
    )]
    timeout: u64,
    /// Milliseconds between two looks at --model
    #[arg(
        long,
        value_name = "MS",
        default_value_t = ServeConfig::default().watch_ms,
        help_heading = "Model"
    )]
    watch: u64,
    /// Write the address that is listened at into this file, for port 0
    #[arg(long, value_name = "FILE", help_heading = "Address")]
    address_file: Option<PathBuf>,
}

impl ServeArgs {
    fn config(&self) -> ServeConfig {
        ServeConfig {
            model: self.model.clone(),
            llm: self.llm.clone(),
            listen: self.listen,
            max_k: self.max_k,
            max_requests: self.max_requests,
            max_items: self.max_items,
            max_body: self.max_body,
            queue: self.queue,
            batch: self.batch,
            batch_wait_ms: self.batch_wait,
            timeout_ms: self.timeout,
            watch_ms: self.watch,
        }
    }
}

/// Serves until Ctrl-C or a termination signal, then answers what has come in.
pub fn run(args: &ServeArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => show_error(&*error, 1).into(),
    }
}

fn serve(args: &ServeArgs) -> Result<()> {
    let service = Service::start(args.config(), &device(&args.device)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::bind(service).await?;
        let address = server.address();
        if let Some(path) = &args.address_file {
            save(path, address.to_string().as_bytes())?;
        }
        errln!("listening at http://{address}");
        server.run(end_signal()).await?;
        errln!("stopped: every request that had come in is answered");
        Ok(())
    })
}

/// Ready at Ctrl-C or a termination signal.
async fn end_signal() {
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn config(flags: &str) -> ServeConfig {
        let words = format!("serve --model run {flags}");
        Cli::try_parse_from(words.split_whitespace()).unwrap().args.config()
    }

    #[test]
    fn flags_left_out_have_the_defaults_of_the_service() {
        assert_eq!(config(""), ServeConfig { model: "run".into(), ..ServeConfig::default() });
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let flags = "--llm llm --listen 127.0.0.1:1 --max-k 2 --max-requests 3 --max-items 4 \
                     --max-body 5 --queue 6 --batch 7 --batch-wait 8 --timeout 9 --watch 10";
        let expected = ServeConfig {
            model: "run".into(),
            llm: Some("llm".into()),
            listen: "127.0.0.1:1".parse().unwrap(),
            max_k: 2,
            max_requests: 3,
            max_items: 4,
            max_body: 5,
            queue: 6,
            batch: 7,
            batch_wait_ms: 8,
            timeout_ms: 9,
            watch_ms: 10,
        };
        assert_eq!(config(flags), expected);
    }
}
