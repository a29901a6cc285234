use std::fs::{File, OpenOptions, TryLockError, create_dir_all, read_dir, remove_file};
use std::io::Result;
use std::path::Path;

use crate::UNFINISHED;

const LOCK: &str = ".lock";

/// Locks a folder for this process until the returned file is dropped. Creates the folder if it
/// does not exist. Returns `None` if another process holds the lock. The operating system releases
/// the lock when the process ends, even after a crash. The function removes the unfinished files
/// ([`UNFINISHED`]) that a killed process left in the folder.
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
/// Returns the errors of the file system.
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
    fn the_lock_holder_removes_unfinished_files() {
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
