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

/// Refuses a path of a flag that is not there, with the near names that are.
///
/// # Errors
/// No such file or folder.
pub fn check_there(flag: &str, path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = path.display();
    let Ok(entries) = std::fs::read_dir(parent) else {
        let parent = parent.display();
        return Err(format!("{flag} {shown}: there is no folder {parent}").into());
    };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let near = glta_core::near_names(&name, names.iter().map(String::as_str));
    let hint = match near.is_empty() {
        true => String::new(),
        false => format!("; near names are {}", near.join(", ")),
    };
    Err(format!("{flag} {shown}: there is no such file or folder{hint}").into())
}
