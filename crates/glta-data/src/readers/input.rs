//! Input files in a folder or a zip archive, plain or gzipped, as UTF-8 or UTF-16.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use super::encoding::decode;
use crate::{Error, Result};

/// A folder, or a zip archive, that contains the files of a data set.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    /// Names of the direct entries of the folder, or full names in the zip archive.
    names: Vec<String>,
    zipped: bool,
}

/// The content of a file as UTF-8 without a byte order mark.
pub(crate) struct Input<'a> {
    /// Name of the file for messages. For a file in an archive, it starts with the name of the
    /// archive, such as `archive.zip/`.
    pub(crate) file: String,
    pub(crate) reader: Box<dyn Read + 'a>,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_within(path, 0)
    }

    /// Opens a folder or an archive. If a folder contains only one folder or one archive, opens
    /// that instead, because some programs extract archives in this way.
    fn open_within(path: &Path, depth: usize) -> Result<Self> {
        let io = |source| io_error(path.display(), source);
        let metadata = std::fs::metadata(path).map_err(io)?;
        let (names, zipped) = if metadata.is_dir() {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path).map_err(io)? {
                if let Ok(name) = entry.map_err(io)?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.retain(|name| !is_system_file(name));
            if let [only] = names.as_slice()
                && depth < DEEPEST
                && (path.join(only).is_dir() || only.ends_with(".zip"))
            {
                return Self::open_within(&path.join(only), depth + 1);
            }
            (names, false)
        } else {
            let archive = ZipArchive::new(File::open(path).map_err(io)?).map_err(|e| {
                let problem = format!(
                    "neither a folder nor a complete zip archive ({e}); give the path of the \
                     folder or archive with the files"
                );
                io(io::Error::new(io::ErrorKind::InvalidData, problem))
            })?;
            let names = archive.file_names().flatten().map(String::from);
            (names.filter(|name| !is_system_file(name)).collect(), true)
        };
        let mut source = Self { path: path.to_owned(), names, zipped };
        // Names with fewer folders come first, and the order is always the same.
        source.names.sort_by_key(|name| (name.matches(['/', '\\']).count(), name.clone()));
        Ok(source)
    }

    /// Returns the path of the folder or archive, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the data set: the name of the folder or archive without `.zip`.
    pub(crate) fn stem(&self) -> String {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let name = absolute.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".zip").unwrap_or(&name);
        name.to_owned()
    }

    /// Returns all file names. The names in an archive are returned without their folders.
    pub(crate) fn file_names(&self) -> impl Iterator<Item = &str> {
        let files = self.names.iter().filter(|name| {
            !name.ends_with(['/', '\\']) && (self.zipped || self.path.join(name).is_file())
        });
        files.map(|name| base_name(name))
    }

    /// Returns whether a file `name` or `name.gz` exists.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns the name, without `.gz`, of the only file for which `fits` returns true.
    ///
    /// In messages, `expected` describes the file, and `field` is the setting that selects it.
    pub(crate) fn one_file(
        &self,
        expected: &str,
        field: &'static str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let plain_names = self.file_names().map(|name| name.strip_suffix(".gz").unwrap_or(name));
        let mut fitting: Vec<&str> = plain_names.filter(|name| fits(name)).collect();
        fitting.sort_unstable();
        fitting.dedup();
        match fitting[..] {
            [one] => Ok(one.to_owned()),
            [] => Err(self.missing(expected, "")),
            _ => Err(Error::Config {
                field,
                problem: format!(
                    "{} has several {expected}; choose one of {}",
                    self.path.display(),
                    fitting.join(", ")
                ),
            }),
        }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Returns the files `name` and `name.gz`. Plain files, and files in fewer folders, come first.
    fn all(&self, name: &str) -> Vec<&str> {
        let mut all: Vec<&str> = self.names.iter().map(String::as_str).collect();
        all.retain(|full| {
            let base = base_name(full);
            (base == name || base.strip_suffix(".gz") == Some(name))
                && (self.zipped || self.path.join(full).is_file())
        });
        all.sort_by_key(|full| full.ends_with(".gz"));
        all
    }

    /// Opens the file `name` or `name.gz` and passes it to `read`.
    pub(crate) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(Input<'_>) -> Result<T>,
    ) -> Result<T> {
        let Some(full) = self.find(name) else {
            return Err(self.missing(name, ""));
        };
        let others = &self.all(name)[1..];
        if !others.is_empty() {
            tracing::warn!("{full} is read; {} with the same name are not", others.join(", "));
        }
        if !self.zipped {
            return read(open_file(&self.path.join(full))?);
        }
        let file = format!("{}/{full}", self.path.display());
        let handle = File::open(&self.path).map_err(|e| io_error(&file, e))?;
        let mut archive = ZipArchive::new(handle).map_err(|e| io_error(&file, e.into()))?;
        let entry = archive.by_name(full).map_err(|e| io_error(&file, e.into()))?;
        read(opened(entry, file)?)
    }

    /// Returns the error for a missing file.
    pub(crate) fn missing(&self, expected: &str, hint: &str) -> Error {
        Error::MissingFile {
            folder: self.path.clone(),
            expected: format!("{expected}, plain or .gz"),
            hint: hint.to_owned(),
        }
    }
}

/// Opens a single file, plain or gzipped.
pub(crate) fn open_file(path: &Path) -> Result<Input<'static>> {
    let file = path.display().to_string();
    let handle = File::open(path).map_err(|e| io_error(&file, e))?;
    opened(handle, file)
}

/// Returns the text of a file, decompressed and decoded to UTF-8.
fn opened<'a>(reader: impl Read + 'a, file: String) -> Result<Input<'a>> {
    let text = decompress(reader).and_then(decode);
    let (reader, encoding) = text.map_err(|e| io_error(&file, e))?;
    if let Some(encoding) = encoding {
        tracing::info!("{file}: written in {encoding}");
    }
    Ok(Input { file, reader })
}

/// Decompresses a file if its first two bytes are those of gzip. The file name does not matter.
fn decompress<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = [0; 2];
    let mut len = 0;
    while len < head.len() {
        match reader.read(&mut head[len..])? {
            0 => break,
            n => len += n,
        }
    }
    let whole = Cursor::new(head).take(len as u64).chain(reader);
    Ok(if head == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

/// Maximum depth of nested folders and archives.
const DEEPEST: usize = 4;

/// Returns the name of a file without folders. Some archives from Windows use backslashes.
fn base_name(name: &str) -> &str {
    name.rsplit_once(['/', '\\']).map_or(name, |(_, base)| base)
}

/// Returns whether macOS or Windows added a file: resource forks (`._x`, a folder `__MACOSX`),
/// hidden files and folders, and files of their file managers.
fn is_system_file(name: &str) -> bool {
    let mut parts = name.split(['/', '\\']);
    parts.any(|part| {
        part == "__MACOSX"
            || (part.starts_with('.') && part.len() > 1)
            || part.eq_ignore_ascii_case("desktop.ini")
            || part.eq_ignore_ascii_case("thumbs.db")
    })
}

pub(crate) fn io_error(file: impl ToString, source: io::Error) -> Error {
    Error::Io { file: file.to_string(), source }
}
