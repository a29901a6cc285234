//! Files that a program leaves.

use std::fs::create_dir_all;
use std::path::Path;

use glta_core::write_whole;

use crate::Result;

/// Writes a file as a whole or not at all.
///
/// # Errors
/// The file cannot be written; the message names it.
pub fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes).map_err(|e| format!("{}: {e}", path.display()).into())
}

/// Makes a folder and those above it.
///
/// # Errors
/// The folder cannot be made; the message names it.
pub fn make_dir(path: &Path) -> Result<()> {
    create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()).into())
}
