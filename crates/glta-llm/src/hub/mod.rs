//! Downloads checkpoints of the Hugging Face Hub into the cache of the Hub's own tools.
//!
//! ```no_run
//! use glta_llm::{Llama, LlamaOptions, Tokenizer, hub};
//!
//! // Settings of the environment, no progress:
//! let llm = Llama::from_hub("TheBloke/Llama-2-7B-GPTQ", "main")?;
//!
//! // The folder, for everything that reads one:
//! let options = hub::HubOptions::from_env()?;
//! let dir = hub::download("TheBloke/Llama-2-7B-GPTQ", "main", &options)?;
//! let tokenizer = Tokenizer::load(&dir)?;
//! # Ok::<(), glta_llm::Error>(())
//! ```
//!
//! URLs and the layout of the cache are the same as in the `hf-hub` crate. Unlike that crate, this
//! module verifies each file before it appears in the snapshot: its length must equal the length
//! that the hub announced, and if its ETag is a SHA-256 (as for all weights), its hash must equal
//! the ETag. An interrupted transfer of a hashed file resumes, also in a later call. All other
//! files are small, and their transfer starts again in a later call. If several processes want the
//! same file, one downloads it and the others wait.

mod cache;
mod client;
mod options;
mod plan;
mod transfer;

pub use options::HubOptions;

use std::path::PathBuf;

use candle_core::Device;
use glta_core::{Progress, Silent, report};
use hf_hub::{Repo, RepoType};

use crate::error::{Error, Result};
use crate::model::Llama;
use crate::options::LlamaOptions;
use cache::RepoCache;
use client::{Client, Metadata};

/// Progress of a [`download`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubEvent<'a> {
    /// Name of the current file.
    pub file: &'a str,
    /// Index of the file, from 0.
    pub index: usize,
    /// Total number of files.
    pub files: usize,
    /// Number of available bytes of all files, including cached files. It decreases when a file
    /// starts again.
    pub done: u64,
    /// Total number of bytes of all files.
    pub total: u64,
}

impl Llama {
    /// Loads the checkpoint `owner/name` of the hub at a branch, tag or commit. Settings come from
    /// [`HubOptions::from_env`]. Downloads files that are not in the cache.
    ///
    /// # Errors
    /// Returns the errors of [`hub::download`](download) and [`Llama::load`].
    pub fn from_hub(id: &str, revision: &str) -> Result<Self> {
        let options = HubOptions::from_env()?;
        let dir = download(id, revision, &options)?;
        Self::load(dir, &LlamaOptions::default(), &Device::Cpu)
    }
}

/// Downloads a checkpoint into the cache and returns its folder: configuration, tokenizer and
/// safetensors weights of `id` (`owner/name`) at `revision` (a branch, tag or commit; usually
/// `main`).
///
/// If `options.offline` is set or the hub cannot be reached, returns the cached revision if it is
/// complete.
///
/// # Errors
/// Returns an error for an invalid id or revision; files missing from the cache while offline; a
/// repository, revision or weights that do not exist or that the hub refuses; a transfer that fails
/// repeatedly or does not match the announced length or hash; and a cache that cannot be written.
pub fn download(id: &str, revision: &str, options: &HubOptions) -> Result<PathBuf> {
    download_with(id, revision, options, &mut Silent)
}

/// Downloads like [`download`] and reports progress. `progress` can cancel the download, and the
/// next call resumes it.
///
/// # Errors
/// Returns the errors of [`download`], and [`Error::Cancelled`].
pub fn download_with(
    id: &str,
    revision: &str,
    options: &HubOptions,
    progress: &mut dyn for<'a> Progress<HubEvent<'a>>,
) -> Result<PathBuf> {
    check_id(id)?;
    check_revision(revision)?;
    let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
    let cache = RepoCache::new(&options.cache, &repo);
    if options.offline {
        return cache.complete_snapshot()?.map_err(|missing| {
            Error::hub(
                format!("{id}@{revision}"),
                format!("{missing}, and the hub is offline; unset HF_HUB_OFFLINE to fetch it"),
            )
        });
    }
    let client = Client::new(options)?;
    let info = match client.info(&repo) {
        Ok(info) => info,
        Err(failure) => {
            return match cache.complete_snapshot() {
                Ok(Ok(dir)) if failure.transient => {
                    tracing::warn!("{}; using the cached {}", failure.error, dir.display());
                    Ok(dir)
                }
                _ => Err(failure.error),
            };
        }
    };
    let fetcher = Fetcher { client, cache, url: repo.url(), commit: info.sha };
    client::check_commit(&fetcher.commit).map_err(|m| Error::hub(repo.api_url(), m))?;
    fetcher.checkpoint(info.siblings.into_iter().map(|s| s.rfilename).collect(), progress)
}

/// A download of one commit of a repository into the cache.
struct Fetcher {
    client: Client,
    cache: RepoCache,
    /// Path of the repository in URLs.
    url: String,
    commit: String,
}

impl Fetcher {
    fn checkpoint(
        &self,
        names: Vec<String>,
        progress: &mut dyn for<'a> Progress<HubEvent<'a>>,
    ) -> Result<PathBuf> {
        let snapshot = self.cache.snapshot(&self.commit);
        let lacking =
            |problem: String| Error::hub(format!("{} at {}", self.url, self.commit), problem);
        // Download the index first, because it lists the weights.
        if let Some(index) = plan::index(&names).map_err(lacking)? {
            self.file(index, &self.metadata(index)?, &mut Silent)?;
        }
        let wanted = plan::files(&names, &snapshot)?.map_err(lacking)?;
        let files = wanted
            .into_iter()
            .map(|name| Ok((self.metadata(&name)?, name)))
            .collect::<Result<Vec<_>>>()?;
        let total = files.iter().map(|(metadata, _)| metadata.size).sum();
        let mut before = 0;
        for (index, (metadata, name)) in files.iter().enumerate() {
            self.file(name, metadata, &mut |bytes: &u64| {
                let (files, done) = (files.len(), before + bytes);
                progress.report(&HubEvent { file: name, index, files, done, total })
            })?;
            before += metadata.size;
        }
        // Write the ref last, so that a revision in the cache is always complete.
        self.cache.write_ref(&self.commit)?;
        Ok(snapshot)
    }

    fn path(&self, name: &str) -> String {
        format!("/{}/resolve/{}/{}", self.url, self.commit, client::escape(name))
    }

    fn metadata(&self, name: &str) -> Result<Metadata> {
        self.client.metadata(&self.path(name), &self.commit).map_err(|failure| failure.error)
    }

    /// Downloads one file into the snapshot and reports its available bytes.
    fn file(
        &self,
        name: &str,
        metadata: &Metadata,
        progress: &mut dyn Progress<u64>,
    ) -> Result<()> {
        let _lock = self.cache.lock(&metadata.etag, progress)?;
        if !self.cache.has_blob(metadata) {
            let blob = self.cache.blob(&metadata.etag);
            transfer::fetch(&self.client, &self.path(name), metadata, &blob, progress)?;
        }
        self.cache.link(&self.commit, name, &metadata.etag)?;
        Ok(report(progress, &metadata.size)?)
    }
}

/// Checks that an id is `owner/name` with characters that the hub allows, which prevents path
/// traversal.
fn check_id(id: &str) -> Result<()> {
    let fine = |part: &str| {
        part.len() <= 96
            && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.contains("..")
            && !part.contains("--")
    };
    match id.split_once('/') {
        Some((owner, name)) if fine(owner) && fine(name) => Ok(()),
        _ => Err(Error::Input(format!("{id:?} is not the id of a model on the hub (owner/name)"))),
    }
}

/// Checks the name of a branch or tag, or a commit, which prevents path traversal.
fn check_revision(revision: &str) -> Result<()> {
    let fine = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+=@".contains(c))
            && !part.contains("..")
    };
    if revision.len() <= 200 && revision.split('/').all(fine) {
        return Ok(());
    }
    Err(Error::Input(format!("{revision:?} is not a branch, tag or commit of a hub repository")))
}
