use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use glta_core::{Progress, Silent, report, write_whole};
use hf_hub::{Cache, CacheRepo, Repo};

use super::client::{Metadata, check_commit};
use super::plan;
use crate::error::{Error, Result};

/// One repository in the cache of the hub. Blobs are named by ETag. The folder of a commit contains
/// links to the blobs, and the refs contain the commit of each branch.
pub(super) struct RepoCache {
    layout: CacheRepo,
    revision: String,
    /// Folder of the repository.
    root: PathBuf,
    /// Folder of the repository's lock files.
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &Repo) -> Self {
        Self {
            layout: Cache::new(cache.to_path_buf()).repo(repo.clone()),
            revision: repo.revision().to_owned(),
            root: cache.join(repo.folder_name()),
            locks: cache.join(".locks").join(repo.folder_name()),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.layout.blob_path(etag)
    }

    /// Returns whether the blob is complete. Other tools may have left an incomplete one.
    pub(super) fn has_blob(&self, metadata: &Metadata) -> bool {
        fs::metadata(self.blob(&metadata.etag)).is_ok_and(|m| m.len() == metadata.size)
    }

    /// Returns the folder of the revision if it contains every file of a checkpoint, or else a
    /// description of what is missing.
    pub(super) fn complete_snapshot(&self) -> Result<std::result::Result<PathBuf, String>> {
        let reference = fs::read_to_string(self.root.join("refs").join(&self.revision));
        let commit = reference.as_deref().map_or(self.revision.as_str(), str::trim);
        let dir = self.snapshot(commit);
        if check_commit(commit).is_err() || !dir.is_dir() {
            return Ok(Err(format!("{} holds no such revision", self.root.display())));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io(&dir))?.flatten() {
            // Follow the link, because the blob may be missing.
            if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_file()) {
                names.push(name);
            }
        }
        Ok(match plan::files(&names, &dir)? {
            Ok(_) => Ok(dir),
            Err(problem) => Err(format!("{}: {problem}", dir.display())),
        })
    }

    /// Waits until no other process, of this or another hub tool, uses the blob. Reports 0 bytes
    /// during the wait.
    pub(super) fn lock(&self, etag: &str, progress: &mut dyn Progress<u64>) -> Result<File> {
        fs::create_dir_all(&self.locks).map_err(Error::io(&self.locks))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file =
            File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => report(progress, &0)?,
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Links a blob into the folder of a commit. The caller must hold the lock of the blob.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<()> {
        let dir = self.snapshot(commit);
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let (blob, path) = (self.blob(etag), dir.join(name));
        if let (Ok(old), Ok(new)) = (fs::canonicalize(&path), fs::canonicalize(&blob))
            && old == new
        {
            return Ok(());
        }
        let temporary = blob.with_file_name(format!("{etag}.link"));
        let _ = fs::remove_file(&temporary);
        #[cfg(unix)]
        let linked = {
            let target = Path::new("..").join("..").join("blobs").join(etag);
            std::os::unix::fs::symlink(target, &temporary)
        };
        // Symbolic links need a privilege on Windows.
        #[cfg(not(unix))]
        let linked = fs::hard_link(&blob, &temporary);
        linked.map_err(Error::io(&temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io(&path))
    }

    /// Writes the commit to the ref of the revision.
    pub(super) fn write_ref(&self, commit: &str) -> Result<()> {
        if self.revision == commit {
            return Ok(());
        }
        let _lock = self.lock("refs", &mut Silent)?;
        let path = self.root.join("refs").join(&self.revision);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
        }
        write_whole(&path, commit.as_bytes()).map_err(Error::io(&path))
    }
}
