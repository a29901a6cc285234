//! What is not there yet is fetched, or it is said what to fetch and where to
//! put it.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Result;

/// `path` if it exists; else the file at `url`, downloaded to `path`.
pub fn data(path: &Path, url: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    eprintln!("{} is not there; fetching {url}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    let download = || -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut response = ureq::get(url).call()?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let expected = response.body().content_length();
        let mut body = response.body_mut().as_reader();
        let written = std::io::copy(&mut body.by_ref(), &mut file)?;
        if expected.is_some_and(|expected| expected != written) {
            return Err(format!("the connection ended after {written} bytes").into());
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    download().map_err(|e| {
        format!(
            "{} does not exist and could not be fetched ({e}); download {url} and put it there, \
             or name another path with --data",
            path.display()
        )
        .into()
    })
}

/// The folder of a checkpoint: a path, or the id of one on the Hugging Face hub
/// (`owner/name`), whose files are then downloaded into the hub's usual cache.
pub fn checkpoint(path_or_id: &str) -> Result<PathBuf> {
    let path = Path::new(path_or_id);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let is_id = path_or_id.split('/').count() == 2 && !path_or_id.starts_with(['.', '/', '~']);
    if !is_id {
        return Err(format!(
            "--llm {path_or_id}: there is no such folder, and it is not the id of a checkpoint \
             on the hub (owner/name)"
        )
        .into());
    }
    hub(path_or_id).map_err(|e| {
        format!(
            "--llm {path_or_id} could not be fetched from the hub ({e}); download config.json, \
             tokenizer.json, model.safetensors (all shards and their index) and, where there is \
             one, quantize_config.json of https://huggingface.co/{path_or_id} into a folder and \
             name that folder with --llm"
        )
        .into()
    })
}

fn hub(id: &str) -> Result<PathBuf> {
    let repo = hf_hub::api::sync::Api::new()?.model(id.to_owned());
    let config = repo.get("config.json")?;
    repo.get("tokenizer.json")?;
    for file in repo.info()?.siblings {
        let name = file.rfilename;
        let wanted = name.ends_with(".safetensors")
            || name == "model.safetensors.index.json"
            || ["quantize_config.json", "tokenizer_config.json", "generation_config.json"]
                .contains(&name.as_str());
        if wanted && !name.contains('/') {
            repo.get(&name)?;
        }
    }
    Ok(config.parent().unwrap_or(Path::new(".")).to_owned())
}
