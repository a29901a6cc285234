//! Output files of the programs.

use std::fs::create_dir_all;
use std::path::Path;

use glta_core::write_whole;

use crate::Result;

/// Writes a file atomically.
///
/// # Errors
/// Returns an error with the path if the file cannot be written.
pub fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes).map_err(|e| format!("{}: {e}", path.display()).into())
}

/// Creates a folder and its parents.
///
/// # Errors
/// Returns an error with the path if the folder cannot be created.
pub fn make_dir(path: &Path) -> Result<()> {
    create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()).into())
}

/// Checks that the path of a flag exists.
///
/// # Errors
/// Returns an error with similar names if the file or folder does not exist.
pub fn check_there(flag: &str, path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = path.display();
    let Ok(entries) = std::fs::read_dir(parent) else {
        let parent = parent.display();
        return Err(format!("{flag} {shown}: no such folder: {parent}").into());
    };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let near = glta_core::near_names(&name, names.iter().map(String::as_str));
    let hint = if near.is_empty() {
        String::new()
    } else {
        format!("; similar names are {}", near.join(", "))
    };
    Err(format!("{flag} {shown}: no such file or folder{hint}").into())
}
