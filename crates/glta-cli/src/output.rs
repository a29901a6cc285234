//! Prints lines to standard output and standard error, and continues if their reader is gone.
//!
//! `println!` panics if the reader of a pipe has exited (`… | head`) or the terminal is closed. The
//! programs here continue, because their results are also in files.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// The first failed write to standard output, except to a closed pipe.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line to standard output.
pub(crate) fn out(line: Arguments<'_>) {
    keep(writeln!(io::stdout().lock(), "{line}"));
}

/// Prints a line to standard error.
pub(crate) fn err(line: Arguments<'_>) {
    // A failure to print an error cannot be reported.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Returns the first failed write to standard output, for example on a full disk. A closed pipe is
/// not a failure.
///
/// # Errors
/// The error of this write.
pub(crate) fn finish() -> io::Result<()> {
    keep(io::stdout().lock().flush());
    let failed = FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn keep(written: io::Result<()>) {
    // Writing to a closed terminal gives EIO.
    const CLOSED_TERMINAL: i32 = 5;
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && error.raw_os_error() != Some(CLOSED_TERMINAL)
    {
        let mut failed = FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failed.get_or_insert(error);
    }
}

/// `println!` that does not panic.
macro_rules! outln {
    () => { $crate::output::out(format_args!("")) };
    ($($text:tt)*) => { $crate::output::out(format_args!($($text)*)) };
}

/// `eprintln!` that does not panic.
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::err(format_args!($($text)*)) };
}

pub(crate) use {errln, outln};
