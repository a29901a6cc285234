//! `glta serve`: serves recommendations over HTTP from the folder of a fitted model.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use glta_serve::{ServeConfig, Server, Service, Token};

use crate::device::device;
use crate::files::save;
use crate::output::errln;
use crate::{Result, experiment, show_error};

/// Flags of `glta serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Folder of a fitted model, such as runs/quickstart/seed-2024/glta, or a link to one; when a
    /// different model appears there, it is loaded while the old one still answers.
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    model: PathBuf,
    /// Folder of the model's checkpoint; it is only read if answers or the texts of new items need
    /// it.
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    llm: Option<PathBuf>,
    /// Folder of the model's sentence encoder, which encodes the texts of new items.
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    text_encoder: Option<PathBuf>,
    /// Device of the language model: cpu, or cuda[:N] with the feature cuda.
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    device: String,
    /// Address of the server; the default can only be reached from this machine.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value_t = ServeConfig::default().listen,
        help_heading = "Address"
    )]
    listen: SocketAddr,
    /// Maximum number of items in each list of an answer.
    #[arg(long, default_value_t = ServeConfig::default().max_k, help_heading = "Limits")]
    max_k: usize,
    /// Maximum number of requests in a batch request.
    #[arg(long, default_value_t = ServeConfig::default().max_requests, help_heading = "Limits")]
    max_requests: usize,
    /// Maximum number of items in a request.
    #[arg(long, default_value_t = ServeConfig::default().max_items, help_heading = "Limits")]
    max_items: usize,
    /// Maximum size of the body of a request in bytes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = ServeConfig::default().max_body,
        help_heading = "Limits"
    )]
    max_body: usize,
    /// Maximum number of waiting requests; further requests get status 503.
    #[arg(long, default_value_t = ServeConfig::default().queue, help_heading = "Limits")]
    queue: usize,
    /// Maximum number of requests that the model processes together.
    #[arg(long, default_value_t = ServeConfig::default().batch, help_heading = "Limits")]
    batch: usize,
    /// Milliseconds that a request waits for other requests to form a batch, if the model runs a
    /// prompt.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = ServeConfig::default().batch_wait_ms,
        help_heading = "Limits"
    )]
    batch_wait: u64,
    /// Milliseconds after which a request without an answer gets status 504.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = ServeConfig::default().timeout_ms,
        help_heading = "Limits"
    )]
    timeout: u64,
    /// Journal file, which stores the writes of clients [default: NAME.journal.sqlite next to
    /// --model, created at the first write]
    #[arg(long, value_name = "FILE", help_heading = "Writes")]
    journal: Option<PathBuf>,
    /// Token that writes must send as `Authorization: Bearer TOKEN` [default: the environment
    /// variable GLTA_TOKEN]; without one, only clients at a loopback address may write
    #[arg(long, help_heading = "Writes")]
    token: Option<String>,
    /// Origin whose pages may send requests and, with the token, write, such as
    /// `https://shop.example`; the flag may be repeated, and * means all origins.
    #[arg(long, value_name = "ORIGIN", help_heading = "Writes")]
    allow_origin: Vec<String>,
    /// Maximum number of connections; a new connection beyond this number closes the one that has
    /// waited longest for a complete request.
    #[arg(long, default_value_t = ServeConfig::default().connections, help_heading = "Connections")]
    connections: usize,
    /// Maximum time in milliseconds until the head of a request is complete; a connection that
    /// takes longer is closed.
    #[arg(long, value_name = "MS", default_value_t = ServeConfig::default().head_ms,
        help_heading = "Connections")]
    head_timeout: u64,
    /// Maximum time in milliseconds until the body of a request is complete; a request that takes
    /// longer gets status 408.
    #[arg(long, value_name = "MS", default_value_t = ServeConfig::default().body_ms,
        help_heading = "Connections")]
    body_timeout: u64,
    /// Milliseconds after which a client that does not read its answer is disconnected.
    #[arg(long, value_name = "MS", default_value_t = ServeConfig::default().unread_ms,
        help_heading = "Connections")]
    unread_timeout: u64,
    /// Maximum time in milliseconds that a shutdown takes to answer the complete requests; a second
    /// signal ends the process at once.
    #[arg(long, value_name = "MS", default_value_t = ServeConfig::default().drain_ms,
        help_heading = "Connections")]
    drain: u64,
    /// Milliseconds between two checks of whether --model has changed.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = ServeConfig::default().watch_ms,
        help_heading = "Model"
    )]
    watch: u64,
    /// File to which the address is written; needed to learn the port of an address with port 0.
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
            journal: self.journal.clone(),
            token: self.token.clone().or_else(|| std::env::var(TOKEN).ok()).map(Token::new),
            allow_origin: self.allow_origin.clone(),
            connections: self.connections,
            head_ms: self.head_timeout,
            body_ms: self.body_timeout,
            unread_ms: self.unread_timeout,
            drain_ms: self.drain,
        }
    }
}

/// Environment variable of the token. Unlike a flag, it is hidden from other users of the machine.
const TOKEN: &str = "GLTA_TOKEN";

/// Serves until Ctrl-C or a termination signal, and then answers the complete requests. A second
/// signal ends the process at once.
pub fn run(args: &ServeArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => show_error(&*error, 1).into(),
    }
}

fn serve(args: &ServeArgs) -> Result<()> {
    let encoder = args.text_encoder.as_deref().map(experiment::text_encoder).transpose()?;
    let sentence = encoder.map(Arc::from);
    let service = Service::start_with(args.config(), &device(&args.device)?, sentence)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::bind(service).await?;
        let address = server.address();
        let signals = Signals::new()?;
        if let Some(path) = &args.address_file {
            save(path, address.to_string().as_bytes())?;
        }
        errln!("listening on http://{address}");
        server.run(signals.first()).await?;
        errln!("stopped; all complete requests were answered or are listed above");
        Ok(())
    })
}

/// Receivers of Ctrl-C and, on Unix, of the termination signal.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

/// Exit code after Ctrl-C, the same as in shells.
const INTERRUPTED: i32 = 130;
/// Exit code after the termination signal, the same as in shells.
#[cfg(unix)]
const TERMINATED: i32 = 143;

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for a signal. From then on, another signal ends the process.
    async fn first(mut self) {
        self.next().await;
        errln!("shutting down; another signal ends the process at once");
        tokio::spawn(async move {
            let code = self.next().await;
            errln!("ended at once");
            std::process::exit(code);
        });
    }

    /// Waits for the next signal and returns its exit code.
    #[cfg(unix)]
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> i32 {
        let _ = tokio::signal::ctrl_c().await;
        INTERRUPTED
    }
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
                     --max-body 5 --queue 6 --batch 7 --batch-wait 8 --timeout 9 --watch 10 \
                     --journal j --token t --allow-origin https://a.b --allow-origin * \
                     --connections 11 --head-timeout 12 --body-timeout 13 --unread-timeout 14 \
                     --drain 15";
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
            journal: Some("j".into()),
            token: Some(Token::new("t")),
            allow_origin: vec!["https://a.b".into(), "*".into()],
            connections: 11,
            head_ms: 12,
            body_ms: 13,
            unread_ms: 14,
            drain_ms: 15,
        };
        assert_eq!(config(flags), expected);
    }
}
