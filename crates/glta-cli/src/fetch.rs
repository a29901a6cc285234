//! Downloads of data sets and checkpoints that are not there yet.

use std::path::{Path, PathBuf};

use glta_core::with_causes;

use crate::Result;
use crate::progress::Reporter;

/// Makes sure that `path` exists: if it does not, downloads the file at `url` to it.
///
/// # Errors
/// A failed download; the message says which file to put where.
pub fn data(path: &Path, url: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    download(path, url).map_err(|e| {
        format!(
            "{} does not exist and could not be fetched ({}); download {url} and put it there, \
             or name another path with --data",
            path.display(),
            with_causes(&*e)
        )
        .into()
    })
}

#[cfg(feature = "hub")]
fn download(path: &Path, url: &str) -> Result<()> {
    use std::io::Read;

    crate::output::errln!("{} is not there; fetching {url}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut response = ureq::get(url).call()?;
    let mut builder = tempfile::Builder::new();
    // As readable as any other new file.
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

/// The folder of a checkpoint: a path, or `owner/name` or `owner/name@revision` of one on
/// the Hugging Face hub, whose files are then downloaded into the hub's usual cache.
///
/// # Errors
/// Neither a folder nor an id on the hub, or a failed download.
pub fn checkpoint(path_or_id: &str, reporter: &mut Reporter) -> Result<PathBuf> {
    let path = Path::new(path_or_id);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let (id, revision) = path_or_id.split_once('@').unwrap_or((path_or_id, "main"));
    if id.split('/').count() != 2 || id.starts_with(['.', '/', '~']) {
        return Err(format!(
            "{path_or_id}: there is no such folder, and it is not the id of a checkpoint on the \
             hub (owner/name, or owner/name@revision)"
        )
        .into());
    }
    from_hub(id, revision, reporter).map_err(|e| {
        format!(
            "{path_or_id} could not be fetched from the hub ({}); a folder will do as well, with \
             config.json, tokenizer.json, model.safetensors (all shards and their index) and, \
             where there is one, quantize_config.json of {id}",
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
