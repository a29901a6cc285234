//! Downloads of missing data sets and checkpoints.

use std::path::{Path, PathBuf};

use glta_core::with_causes;

use crate::Result;
use crate::progress::Reporter;

/// Downloads the file at `url` to `path` if `path` does not exist.
///
/// # Errors
/// Returns an error if the download fails. The message names the file and where to put it.
pub fn data(path: &Path, url: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    download(path, url).map_err(|e| {
        format!(
            "{} does not exist and could not be downloaded ({}); download {url} to this path, or \
             give another path with --data",
            path.display(),
            with_causes(&*e)
        )
        .into()
    })
}

#[cfg(feature = "hub")]
fn download(path: &Path, url: &str) -> Result<()> {
    use std::io::Read;

    crate::output::errln!("{} does not exist; downloading {url}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut response = ureq::get(url).call()?;
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default. The download gets the usual permissions of a file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(glta_core::UNFINISHED).tempfile_in(folder)?;
    let expected = response.body().content_length();
    let mut body = response.body_mut().as_reader();
    let written = std::io::copy(&mut body.by_ref(), &mut file)?;
    if expected.is_some_and(|expected| expected != written) {
        return Err(format!("the connection ended after {written} bytes").into());
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(not(feature = "hub"))]
fn download(_: &Path, _: &str) -> Result<()> {
    Err("this program was built without the feature `hub`".into())
}

/// Returns the folder of a checkpoint. `path_or_id` is a path, or an id on the Hugging Face Hub
/// (`owner/name` or `owner/name@revision`), whose files are then downloaded to the hub's cache.
///
/// # Errors
/// Returns an error if `path_or_id` is neither a folder nor an id on the hub, or if the download
/// fails.
pub fn checkpoint(path_or_id: &str, reporter: &mut Reporter) -> Result<PathBuf> {
    let path = Path::new(path_or_id);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let (id, revision) = path_or_id.split_once('@').unwrap_or((path_or_id, "main"));
    if id.split('/').count() != 2 || id.starts_with(['.', '/', '~']) {
        return Err(format!(
            "{path_or_id}: no such folder, and not the id of a checkpoint on the hub (owner/name, \
             or owner/name@revision)"
        )
        .into());
    }
    from_hub(id, revision, reporter).map_err(|e| {
        format!(
            "{path_or_id} could not be downloaded from the hub ({}); alternatively give a folder \
             with config.json, tokenizer.json, model.safetensors (all shards and their index) and, \
             if it exists, quantize_config.json of {id}",
            with_causes(&*e)
        )
        .into()
    })
}

#[cfg(feature = "hub")]
fn from_hub(id: &str, revision: &str, reporter: &mut Reporter) -> Result<PathBuf> {
    use glta_llm::hub::{HubEvent, HubOptions, download_with};

    let options = HubOptions::from_env()?;
    let fetched = download_with(id, revision, &options, &mut |event: &HubEvent<'_>| {
        reporter.bytes(&format!("fetching {id}"), event.done, event.total, event.file)
    });
    reporter.finish();
    Ok(fetched?)
}

#[cfg(not(feature = "hub"))]
fn from_hub(_: &str, _: &str, _: &mut Reporter) -> Result<PathBuf> {
    Err("this program was built without the feature `hub`".into())
}
