//! Handles Ctrl-C. The first Ctrl-C stops the program after the current step, and work without
//! steps after 1.5 s at the latest. The second Ctrl-C stops the program at once.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::output::errln;

/// Exit code after Ctrl-C, the same as in shells.
pub const EXIT_CODE: u8 = 130;

/// Time for which work without progress reports may continue after Ctrl-C.
const PATIENCE: Duration = Duration::from_millis(1500);

static ASKED: AtomicBool = AtomicBool::new(false);
/// Whether a step is running that saves its result at its end.
static IN_STEP: AtomicBool = AtomicBool::new(false);
/// Unfinished folders that are deleted when the program ends.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Installs the handler of Ctrl-C.
pub fn listen() {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            end();
        }
        if IN_STEP.load(Ordering::Relaxed) {
            errln!("\nstopping after this step; press Ctrl-C again to end at once");
            return;
        }
        errln!("\nstopping");
        std::thread::spawn(|| {
            std::thread::sleep(PATIENCE);
            if !IN_STEP.load(Ordering::Relaxed) {
                end();
            }
        });
    };
    // Without a handler Ctrl-C ends the program, and the saved checkpoints remain.
    let _ = ctrlc::set_handler(handler);
}

/// Ends the program and deletes unfinished folders. Files are written atomically, so none is
/// incomplete.
fn end() -> ! {
    let folders = UNFINISHED.lock().map(|folders| folders.clone()).unwrap_or_default();
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
    errln!("stopped");
    exit(EXIT_CODE.into());
}

/// Returns whether Ctrl-C was pressed.
pub fn is_requested() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Returns the answer of a progress callback, which is `Break` after Ctrl-C was pressed.
pub fn answer() -> ControlFlow<()> {
    if is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Sets whether a step is running that saves its result at its end, as training does. Ctrl-C then
/// waits for the end of the step.
pub fn in_step(yes: bool) {
    IN_STEP.store(yes, Ordering::Relaxed);
}

/// A folder that is deleted if the program ends before [`finish`](Self::finish) is called.
pub struct Unfinished(tempfile::TempDir);

impl Unfinished {
    /// Creates an empty folder in `parent`.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created.
    pub fn new(prefix: &str, parent: &Path) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        if let Ok(mut folders) = UNFINISHED.lock() {
            folders.push(folder.path().to_owned());
        }
        Ok(Self(folder))
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Moves the finished folder to `path`, which may be an empty folder.
    ///
    /// # Errors
    /// Returns an error if `path` is a folder that is not empty, or cannot be written.
    pub fn finish(self, path: &Path) -> crate::Result<()> {
        let _ = std::fs::remove_dir(path);
        let from = self.path().to_owned();
        let moved = std::fs::rename(&from, path);
        moved.map_err(|e| format!("{} to {}: {e}", from.display(), path.display()))?;
        if let Ok(mut folders) = UNFINISHED.lock() {
            folders.retain(|folder| *folder != from);
        }
        // The folder was moved, so there is nothing to delete.
        let _ = self.0.keep();
        Ok(())
    }
}
