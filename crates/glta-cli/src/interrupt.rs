//! Ctrl-C: the first stops the program at the next step, the second at once.

use crate::output::errln;
use std::ops::ControlFlow;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program that Ctrl-C ended, as shells report it.
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Handles Ctrl-C from now on.
pub fn listen() {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            exit(EXIT_CODE.into());
        }
        errln!("\nstopping after this step; Ctrl-C again ends at once");
    };
    // Without a handler Ctrl-C ends the program; checkpoints are there all the same.
    let _ = ctrlc::set_handler(handler);
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// The answer of a progress callback: `Break` once Ctrl-C was pressed.
pub fn answer() -> ControlFlow<()> {
    if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
