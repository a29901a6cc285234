//! Ctrl-C: the first asks for a stop at the next step, the second ends at once.

use std::ops::ControlFlow;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

/// What shells report of a program that Ctrl-C ended.
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C is a request.
pub fn listen() {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            exit(EXIT_CODE.into());
        }
        eprintln!("\nstopping after this step; Ctrl-C again ends at once");
    };
    // Without a handler Ctrl-C ends the program; checkpoints are there all the same.
    let _ = ctrlc::set_handler(handler);
}

/// Whether to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What a progress callback answers.
pub fn answer() -> ControlFlow<()> {
    if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
