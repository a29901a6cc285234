use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Locks a journal for one process, until the returned file is dropped. Returns `None` if another
/// process has the lock. The lock is a separate file, because the locks of SQLite last only for
/// single reads and writes.
pub(crate) fn lock(journal: &Path) -> io::Result<Option<File>> {
    let mut name = journal.as_os_str().to_owned();
    name.push("-lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(PathBuf::from(name))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}
