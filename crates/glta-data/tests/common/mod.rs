//! Files in the publishers' formats.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Creates a folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes `parent/name.zip` with the files inside a folder `name/`, as GroupLens does.
pub(crate) fn zip(parent: &Path, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let path = parent.join(format!("{name}.zip"));
    let mut archive = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default();
    archive.add_directory(format!("{name}/"), options).unwrap();
    for (file, bytes) in files {
        archive.start_file(format!("{name}/{file}"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
    path
}

/// Both files of a generation with three ratings of two films by two users. The third film is not
/// rated.
pub(crate) const CSV: &[(&str, &[u8])] = &[
    ("ratings.csv", b"userId,movieId,rating,timestamp\n1,10,4.0,100\n1,30,3.5,90\r\n7,10,0.5,80\n"),
    (
        "movies.csv",
        "movieId,title,genres\n10,\"American President, The (1995)\",Comedy|Drama\n\
         30,\"\"\"Who\"\" Été (1990)\",(no genres listed)\n40,Unseen (2000),War\n"
            .as_bytes(),
    ),
];

pub(crate) const DAT: &[(&str, &[u8])] = &[
    ("ratings.dat", b"1::10::4::100\n1::30::3::90\n7::10::5::80\n"),
    (
        "movies.dat",
        b"10::American President, The (1995)::Comedy|Drama\n30::\xc9t\xe9 (1990)::War\n",
    ),
];

pub(crate) const ML_100K: &[(&str, &[u8])] = &[
    ("u.data", b"1\t10\t4\t100\n1\t30\t3\t90\n7\t10\t5\t80\n"),
    ("u.genre", b"unknown|0\nAction|1\nDrama|2\n\n"),
    (
        "u.item",
        b"10|Heat (1995)|01-Jan-1995||http://x|0|1|1\n30|\xc9t\xe9 (1990)|||http://x|1|0|0\n",
    ),
];

/// Writes `parent/name.zip` with these entries. An entry without bytes is a folder.
pub(crate) fn zip_of(parent: &Path, name: &str, entries: &[(&str, Option<&[u8]>)]) -> PathBuf {
    let path = parent.join(format!("{name}.zip"));
    let mut archive = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default();
    for (entry, bytes) in entries {
        match bytes {
            Some(bytes) => {
                archive.start_file(*entry, options).unwrap();
                archive.write_all(bytes).unwrap();
            }
            None => archive.add_directory(*entry, options).unwrap(),
        }
    }
    archive.finish().unwrap();
    path
}
