//! Ends a program: prints errors with their causes, and returns exit codes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use glta_comm::Communicator;
use glta_core::with_causes;

use crate::output::errln;
use crate::ranks::{self, Ranks};
use crate::{Result, interrupt, output};

/// Runs the body of a program. An error is printed with its causes and gives exit code 1.
pub fn exit(body: impl FnOnce() -> Result<()>) -> ExitCode {
    interrupt::listen();
    match body().and_then(|()| printed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => show_error(&*error, 1).into(),
    }
}

/// Returns an error if writing to standard output failed for a reason other than a closed pipe.
fn printed() -> Result<()> {
    output::finish().map_err(|e| format!("standard output: {e}").into())
}

/// Runs the body of a program like [`exit`], on all ranks. An error or a panic on one rank ends all
/// ranks.
pub fn exit_on_ranks(body: impl FnOnce(&Ranks) -> Result<()>) -> ExitCode {
    let ranks = match ranks::start() {
        Ok(ranks) if ranks.size() > 1 => ranks,
        alone => return exit(|| body(&alone?)),
    };
    interrupt::listen();
    let ended = catch_unwind(AssertUnwindSafe(|| body(&ranks).and_then(|()| printed())));
    let Err(error) = ended.unwrap_or_else(|_| Err("panicked".into())) else {
        return ExitCode::SUCCESS;
    };
    if interrupt::is_requested() && !ranks.is_root() {
        // Rank 0 first prints what it has saved.
        std::thread::sleep(Duration::from_secs(1));
    } else {
        errln!("rank {} of {}:", ranks.rank(), ranks.size());
    }
    ranks.abort(show_error(&*error, 1).into())
}

/// Prints an error with its causes. Returns `code`, or the exit code of Ctrl-C if Ctrl-C was the
/// cause.
pub fn show_error(error: &(dyn std::error::Error + 'static), code: u8) -> u8 {
    if interrupt::is_requested() {
        errln!("stopped");
        return interrupt::EXIT_CODE;
    }
    errln!("error: {}", with_causes(error));
    code
}
