//! Ctrl-C: the first stops the program at the next step, or soon where there are no steps; the
//! second at once.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::output::errln;

/// Exit code of a program that Ctrl-C ended, as shells report it.
pub const EXIT_CODE: u8 = 130;

/// How long work that does not report may go on.
const PATIENCE: Duration = Duration::from_millis(1500);

static ASKED: AtomicBool = AtomicBool::new(false);
/// Whether a step is under way whose end saves what it did.
static IN_STEP: AtomicBool = AtomicBool::new(false);
/// Unfinished folders that nobody needs.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Handles Ctrl-C from now on.
pub fn listen() {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            end();
        }
        if IN_STEP.load(Ordering::Relaxed) {
            errln!("\nstopping after this step; Ctrl-C again ends at once");
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
    // Without a handler Ctrl-C ends the program; checkpoints are there all the same.
    let _ = ctrlc::set_handler(handler);
}

/// Ends the program. Files are written as a whole or not at all, so nothing is left half done.
fn end() -> ! {
    let folders = UNFINISHED.lock().map(|folders| folders.clone()).unwrap_or_default();
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
    errln!("stopped");
    exit(EXIT_CODE.into());
}

/// Whether Ctrl-C was pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// The answer of a progress callback: `Break` once Ctrl-C was pressed.
pub fn answer() -> ControlFlow<()> {
    if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Says whether steps are under way whose end saves what they did, such as those of training;
/// Ctrl-C then waits for the end of one.
pub fn in_step(yes: bool) {
    IN_STEP.store(yes, Ordering::Relaxed);
}

/// A folder that is removed when the program ends before this is dropped.
pub struct Unfinished(tempfile::TempDir);

impl Unfinished {
    /// An empty folder in `parent`.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn new(prefix: &str, parent: &Path) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        if let Ok(mut folders) = UNFINISHED.lock() {
            folders.push(folder.path().to_owned());
        }
        Ok(Self(folder))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives the finished folder its name; an empty folder of that name gives way.
    ///
    /// # Errors
    /// A folder of that name with something in it, or one that cannot be written.
    pub fn finish(self, path: &Path) -> crate::Result<()> {
        let _ = std::fs::remove_dir(path);
        let from = self.path().to_owned();
        let moved = std::fs::rename(&from, path);
        moved.map_err(|e| format!("{} to {}: {e}", from.display(), path.display()))?;
        if let Ok(mut folders) = UNFINISHED.lock() {
            folders.retain(|folder| *folder != from);
        }
        // It has moved; nothing is left to remove.
        let _ = self.0.keep();
        Ok(())
    }
}
