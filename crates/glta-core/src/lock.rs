use std::fs::{File, OpenOptions, TryLockError, create_dir_all, read_dir, remove_file};
use std::io::Result;
use std::path::Path;

use crate::UNFINISHED;

const LOCK: &str = ".lock";

/// Makes a folder if needed and locks it for this process, until the file is dropped; `None`
/// if another process holds it. The lock is the system's: it goes with the process, however
/// that ends. Files that a killed process was writing ([`UNFINISHED`]) are removed.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let held = glta_core::lock_folder(folder.path())?;
/// assert!(held.is_some());
/// assert!(glta_core::lock_folder(folder.path())?.is_none());
/// drop(held);
/// assert!(glta_core::lock_folder(folder.path())?.is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Errors of the file system.
pub fn lock_folder(path: &Path) -> Result<Option<File>> {
    create_dir_all(path)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(path.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    for entry in read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove_file(entry.path())?;
        }
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_files_are_removed_by_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        let held = lock_folder(&inner).unwrap().unwrap();
        let file = inner.join(format!("{UNFINISHED}1"));
        std::fs::write(&file, "half").unwrap();
        assert!(lock_folder(&inner).unwrap().is_none());
        assert!(file.exists());
        drop(held);
        assert!(lock_folder(&inner).unwrap().is_some());
        assert!(!file.exists());
    }
}
