//! What the pipeline examples share: flags, progress, records, the systems.

#![allow(unreachable_pub)]

pub mod args;
pub mod compare;
pub mod fetch;
pub mod interrupt;
pub mod pipeline;
pub mod plot;
pub mod progress;
pub mod ranks;
pub mod report;
pub mod tasks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use glta::comm::Communicator;

use ranks::Ranks;

/// The error type of the examples: whatever went wrong, to be shown.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs an example's body and turns an error into its message, with causes,
/// and exit code 1.
pub fn exit(body: impl FnOnce() -> Result<()>) -> ExitCode {
    interrupt::listen();
    match body() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error, 1).into(),
    }
}

/// The same for a body that all ranks run. An error or a panic on one ends all.
pub fn exit_on_ranks(body: impl FnOnce(&Ranks) -> Result<()>) -> ExitCode {
    let ranks = match ranks::start() {
        Ok(ranks) if ranks.size() > 1 => ranks,
        alone => return exit(|| body(&alone?)),
    };
    interrupt::listen();
    let ended = catch_unwind(AssertUnwindSafe(|| body(&ranks)));
    let Err(error) = ended.unwrap_or_else(|_| Err("panicked".into())) else {
        return ExitCode::SUCCESS;
    };
    if interrupt::asked() && !ranks.is_root() {
        // Rank 0 says first what it kept.
        std::thread::sleep(Duration::from_secs(1));
    } else {
        eprintln!("rank {} of {}:", ranks.rank(), ranks.size());
    }
    ranks.abort(failed(&*error, 1).into())
}

/// Shows an error with its causes; `code`, or that of Ctrl-C if that was the cause.
pub fn failed(error: &dyn std::error::Error, code: u8) -> u8 {
    if interrupt::asked() {
        eprintln!("stopped");
        return interrupt::EXIT_CODE;
    }
    let mut message = format!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_message = inner.to_string();
        // Some messages hold their cause already.
        if !message.contains(&inner_message) {
            message += &format!(": {inner_message}");
        }
        cause = inner.source();
    }
    eprintln!("{message}");
    code
}
