//! What the pipeline examples share: flags, progress, records, the systems.

#![allow(unreachable_pub)]

pub mod args;
pub mod compare;
pub mod fetch;
pub mod interrupt;
pub mod pipeline;
pub mod plot;
pub mod progress;
pub mod report;
pub mod tasks;

use std::process::ExitCode;

/// The error type of the examples: whatever went wrong, to be shown.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Runs an example's body and turns an error into its message, with causes,
/// and exit code 1.
pub fn exit(body: impl FnOnce() -> Result<()>) -> ExitCode {
    interrupt::listen();
    match body() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error, 1),
    }
}

/// Shows an error with its causes; `code`, or that of Ctrl-C if that was the cause.
pub fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    if interrupt::asked() {
        eprintln!("stopped");
        return interrupt::EXIT_CODE.into();
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
    code.into()
}
