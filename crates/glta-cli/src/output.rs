//! Lines on standard output and standard error that do not end the program when nobody reads
//! them any more.
//!
//! `println!` panics when the reader of a pipe has gone (`… | head`) or the terminal is closed. A
//! program here goes on: what it computes is worth more than its table on the screen.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// The first failed write to standard output that is no closed pipe.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// A line on standard output.
pub(crate) fn out(line: Arguments<'_>) {
    keep(writeln!(io::stdout().lock(), "{line}"));
}

/// A line on standard error.
pub(crate) fn err(line: Arguments<'_>) {
    // Nothing can be said about this one.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The first write to standard output that failed, such as on a full disk. That nobody reads it
/// any more is no failure.
///
/// # Errors
/// That write's error.
pub(crate) fn finish() -> io::Result<()> {
    keep(io::stdout().lock().flush());
    let failed = FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn keep(written: io::Result<()>) {
    // A terminal that was closed answers with EIO.
    const CLOSED_TERMINAL: i32 = 5;
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && error.raw_os_error() != Some(CLOSED_TERMINAL)
    {
        let mut failed = FAILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failed.get_or_insert(error);
    }
}

/// `println!` that never panics.
macro_rules! outln {
    () => { $crate::output::out(format_args!("")) };
    ($($text:tt)*) => { $crate::output::out(format_args!($($text)*)) };
}

/// `eprintln!` that never panics.
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::err(format_args!($($text)*)) };
}

pub(crate) use {errln, outln};
