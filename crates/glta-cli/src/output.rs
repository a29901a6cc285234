//! Prints lines to standard output and standard error. The program continues if the reader of its
//! output has exited.
//!
//! `println!` panics if the reader of a pipe has exited (`… | head`) or the terminal is closed. The
//! programs of this crate continue, because their results are also in files.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// Error of the first failed write to standard output, except to a closed pipe.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line to standard output.
pub(crate) fn out(line: Arguments<'_>) {
    keep(writeln!(io::stdout().lock(), "{line}"));
}

/// Prints a line to standard error.
pub(crate) fn err(line: Arguments<'_>) {
    // No output remains to report that an error cannot be printed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Checks that all lines were written to standard output. A closed pipe is not a failure.
///
/// # Errors
/// Returns the error of the first failed write, for example on a full disk.
pub(crate) fn finish() -> io::Result<()> {
    keep(io::stdout().lock().flush());
    let failed = FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn keep(written: io::Result<()>) {
    // Writing to a closed terminal returns the error EIO.
    const CLOSED_TERMINAL: i32 = 5;
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && error.raw_os_error() != Some(CLOSED_TERMINAL)
    {
        let mut failed = FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failed.get_or_insert(error);
    }
}

/// Prints a line like `println!`, but does not panic.
macro_rules! outln {
    () => { $crate::output::out(format_args!("")) };
    ($($text:tt)*) => { $crate::output::out(format_args!($($text)*)) };
}

/// Prints a line like `eprintln!`, but does not panic.
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::err(format_args!($($text)*)) };
}

pub(crate) use {errln, outln};
