use std::io::{Result, Write};
use std::path::Path;

/// Prefix of the temporary files of [`write_whole`]. If a process is killed, such a file may remain
/// and can be removed.
pub const UNFINISHED: &str = ".writing-";

/// Replaces a file atomically. Even after a crash, `path` contains either the old or the complete
/// new content. The function writes a temporary file in the same folder, syncs it and renames it.
/// The new file has the default permissions.
///
/// ```
/// use glta_core::write_whole;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("settings.toml");
/// write_whole(&path, b"epochs = 3")?;
/// write_whole(&path, b"epochs = 5")?;
/// assert_eq!(std::fs::read(&path)?, b"epochs = 5");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Returns the errors of the file system. The old file then stays unchanged.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("here");
        write_whole(&path, b"old").unwrap();
        write_whole(&folder.path().join("not").join("here"), b"new").unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write_whole(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        // No temporary file remains.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn it_is_as_readable_as_any_other_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (whole, plain) = (folder.path().join("whole"), folder.path().join("plain"));
        write_whole(&whole, b"x").unwrap();
        std::fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }
}
