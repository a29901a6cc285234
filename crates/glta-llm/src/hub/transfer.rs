use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use glta_core::{Progress, report};
use sha2::{Digest, Sha256};

use super::client::{Client, Failure, Metadata, content_length, text_header};
use crate::error::{Error, Result};

/// Maximum number of consecutive attempts without progress.
const ATTEMPTS: u32 = 3;

/// Fetches a file to `blob`, which appears only when it is complete. Until then, the bytes are in a
/// temporary file of the same folder, from which an interrupted download resumes.
pub(super) fn fetch(
    client: &Client,
    path: &str,
    metadata: &Metadata,
    blob: &Path,
    progress: &mut dyn Progress<u64>,
) -> Result<()> {
    if let Some(dir) = blob.parent() {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
    }
    let part = blob.with_file_name(format!("{}.incomplete", metadata.etag));
    let mut file =
        File::options().create(true).append(true).open(&part).map_err(Error::io(&part))?;
    let io = |error| Error::io(&part)(error);
    // Keep the bytes of an earlier call only if the hash can be verified.
    let hashed = metadata.etag.len() == 64 && metadata.etag.chars().all(|c| c.is_ascii_hexdigit());
    if !hashed {
        file.set_len(0).map_err(io)?;
    }
    let mut resumed = file.metadata().map_err(io)?.len() > 0;
    loop {
        complete(client, path, metadata, &mut file, &part, progress)?;
        file.sync_all().map_err(io)?;
        if !hashed || sha256(&part).map_err(io)?.eq_ignore_ascii_case(&metadata.etag) {
            break;
        }
        file.set_len(0).map_err(io)?;
        if !resumed {
            return Err(Error::hub(
                path.trim_start_matches('/'),
                "the bytes that arrived do not have the announced SHA-256; try again",
            ));
        }
        resumed = false;
    }
    fs::rename(&part, blob).map_err(io)
}

/// Downloads the whole file, in several requests if necessary.
fn complete(
    client: &Client,
    path: &str,
    metadata: &Metadata,
    file: &mut File,
    part: &Path,
    progress: &mut dyn Progress<u64>,
) -> Result<()> {
    let mut failures = 0;
    loop {
        let before = file.metadata().map_err(Error::io(part))?.len();
        let failure = match attempt(client, path, metadata, file, part, before, progress) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let after = file.metadata().map_err(Error::io(part))?.len();
        failures = if after > before { 0 } else { failures + 1 };
        if !failure.transient || failures == ATTEMPTS {
            return Err(failure.error);
        }
        tracing::debug!("{}; going on at byte {after}", failure.error);
        if failures > 0 {
            std::thread::sleep(Duration::from_millis(250 << failures));
        }
    }
}

/// Requests the file from byte `have` on and appends the response.
fn attempt(
    client: &Client,
    path: &str,
    metadata: &Metadata,
    file: &mut File,
    part: &Path,
    mut have: u64,
    progress: &mut dyn Progress<u64>,
) -> std::result::Result<(), Failure> {
    let io = |error| Failure::fatal(Error::io(part)(error));
    let size = metadata.size;
    if have == size {
        return Ok(());
    }
    if have > size {
        file.set_len(0).map_err(io)?;
        have = 0;
    }
    let mut answer = client.get(path, have)?;
    let url = answer.url.clone();
    let fatal = |problem: String| Failure::fatal(Error::hub(url.as_str(), problem));
    if answer.response.status() == 200 {
        // The server does not support ranges and sends the whole file.
        file.set_len(0).map_err(io)?;
        have = 0;
    } else if content_range(&answer.response) != Some((have, size)) {
        file.set_len(0).map_err(io)?;
        return Err(Failure::transient(&url, "the server sends another part than was asked for"));
    }
    if let Some(length) = content_length(&answer.response)
        && length != size - have
    {
        return Err(fatal(format!("the server sends {length} bytes, not {}", size - have)));
    }
    let mut body = answer.response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 17];
    loop {
        report(progress, &have).map_err(|cancelled| Failure::fatal(cancelled.into()))?;
        let read = match body.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::transient(&url, error)),
        };
        if read == 0 {
            break;
        }
        if have + read as u64 > size {
            file.set_len(0).map_err(io)?;
            return Err(fatal(format!("the server sends more than the announced {size} bytes")));
        }
        file.write_all(&buffer[..read]).map_err(io)?;
        have += read as u64;
    }
    if have < size {
        let problem = format!("the connection ended after {have} of {size} bytes");
        return Err(Failure::transient(&url, problem));
    }
    Ok(())
}

/// Parses the first byte and the length of the file from a header `bytes first-last/length`.
fn content_range(response: &ureq::http::Response<ureq::Body>) -> Option<(u64, u64)> {
    let range = text_header(response, "content-range")?;
    let (part, length) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = part.split_once('-')?;
    Some((first.parse().ok()?, length.parse().ok()?))
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 17]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
