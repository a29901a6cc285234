//! Describes a model from its folder.

use std::fs::File;
use std::io;
use std::path::Path;

use glta_align::Config;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The description of a model: name, date, hash, settings and validation results.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) name: String,
    /// Time when the last file of the model was written, in RFC 3339.
    pub(crate) date: String,
    /// SHA-256 of the names and contents of the model's files.
    pub(crate) hash: String,
    pub(crate) settings: Value,
    /// Values that the fit measured on validation data.
    pub(crate) validation: Value,
}

/// Name of the file that a run writes last.
pub(crate) const LAST_FILE: &str = "history.json";

impl About {
    /// Describes the model in a folder. Call this only with the path of the folder itself, not of a
    /// link to it.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let last = folder.join(LAST_FILE);
        let written = last.metadata().and_then(|m| m.modified()).map_err(io(&last))?;
        let date = jiff::Timestamp::try_from(written).map(|t| t.strftime("%FT%TZ").to_string());
        let history = std::fs::read_to_string(&last).map_err(io(&last))?;
        let settings = Config::of_run(folder)?;
        Ok(Self {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            date: date.unwrap_or_default(),
            hash: hash(folder).map_err(io(folder))?,
            settings: serde_json::to_value(settings).unwrap_or_default(),
            validation: serde_json::from_str(&history).unwrap_or_default(),
        })
    }
}

/// Hashes all files of a folder except hidden ones, in the order of their names.
fn hash(folder: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !name.starts_with('.') && !name.ends_with("-lock") {
            names.push(name);
        }
    }
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name.as_bytes());
        let mut file = File::open(folder.join(&name))?;
        hash.update(file.metadata()?.len().to_le_bytes());
        io::copy(&mut file, &mut Hasher(&mut hash))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Hasher<'a>(&'a mut Sha256);

impl io::Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support;

    #[test]
    fn the_hash_covers_the_files_and_the_name_is_that_of_the_folder() {
        let run = support::run();
        let folder = tempfile::tempdir().unwrap();
        let copied = folder.path().join("monday");
        support::copy(run.path(), &copied);
        let (one, two) = (About::of(run.path()).unwrap(), About::of(&copied).unwrap());
        assert_eq!(one.hash, two.hash);
        assert_eq!((one.hash.len(), two.name.as_str()), (64, "monday"));
        assert!(two.date.ends_with('Z') && two.date.len() == 20, "{}", two.date);
        assert!(two.settings["graph"].is_object() && two.validation.is_object());
        std::fs::write(copied.join("items.jsonl"), "").unwrap();
        assert_ne!(About::of(&copied).unwrap().hash, one.hash);
    }
}
