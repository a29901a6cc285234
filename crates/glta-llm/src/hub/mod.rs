//! Checkpoints of the Hugging Face hub, in the cache that its own tools use.
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
//! The layout of the cache and its URLs are those of the `hf-hub` crate; the
//! transfer is not, for that one keeps whatever arrived. Here a file appears in
//! the snapshot only when it has the length that the hub announced and, where
//! its ETag is a SHA-256 (all weights), that hash. A transfer that breaks off
//! goes on where it stopped, within a call and in the next one; files without a
//! hash, which are small, start again in the next one. Processes that want the
//! same file wait for each other.

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

/// How far a [`download`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubEvent<'a> {
    /// The file that is fetched or was found in the cache.
    pub file: &'a str,
    /// Its index, from 0.
    pub index: usize,
    /// Number of files.
    pub files: usize,
    /// Bytes of all files that are there, cached ones included. Falls back when
    /// a file has to start again.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

impl Llama {
    /// Loads a checkpoint of the hub, `owner/name`, at a branch, tag or commit,
    /// as [`HubOptions::from_env`] says; what the cache lacks is downloaded.
    ///
    /// # Errors
    /// Those of [`hub::download`](download) and [`Llama::load`].
    pub fn from_hub(id: &str, revision: &str) -> Result<Self> {
        let options = HubOptions::from_env()?;
        let dir = download(id, revision, &options)?;
        Self::load(dir, &LlamaOptions::default(), &Device::Cpu)
    }
}

/// Brings a checkpoint of the hub into the cache and returns its folder there:
/// configuration, tokenizer and safetensors weights of `id` (`owner/name`) at
/// `revision` (branch, tag or commit; usually `main`).
///
/// Offline, and when the hub cannot be reached, the cached state of the
/// revision is returned if it is complete.
///
/// # Errors
/// An id or revision that cannot be one; offline, what the cache lacks; a
/// repository, revision or weights that do not exist or are refused; a transfer
/// that fails repeatedly or brings other bytes than announced; a cache that
/// cannot be written.
pub fn download(id: &str, revision: &str, options: &HubOptions) -> Result<PathBuf> {
    download_with(id, revision, options, &mut Silent)
}

/// [`download`] that reports how far it is. `progress` may cancel it; the next call
/// continues from there.
///
/// # Errors
/// Those of [`download`], and [`Error::Cancelled`].
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

/// One commit of a repository on its way into the cache.
struct Fetcher {
    client: Client,
    cache: RepoCache,
    /// The repository's part of an URL.
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
        // The index tells which weights there are, so it comes first.
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
        // Last, so that a revision offline is a whole one.
        self.cache.write_ref(&self.commit)?;
        Ok(snapshot)
    }

    fn path(&self, name: &str) -> String {
        format!("/{}/resolve/{}/{}", self.url, self.commit, client::escape(name))
    }

    fn metadata(&self, name: &str) -> Result<Metadata> {
        self.client.metadata(&self.path(name), &self.commit).map_err(|failure| failure.error)
    }

    /// Brings one file into the snapshot and reports how many bytes of it are there.
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

/// `owner/name`, of what the hub allows in names; also keeps paths in place.
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

/// A name of a branch or tag, or a commit; also keeps paths in place.
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
