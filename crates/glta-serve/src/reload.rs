//! Replaces the current model when its folder contains a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use candle_core::Device;

use crate::about::LAST_FILE;
use crate::catalogue::Catalogue;
use crate::load::Loader;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::store::ModelStore;
use crate::{Error, Result};
use glta_core::with_causes;

/// Names of the model's files that may be replaced while the others stay the same.
const REPLACED: [&str; 2] = ["model.safetensors", "linear.safetensors"];

/// Identity of a model: the file behind the links, and the time when the last of the model's files
/// was written.
type Stamp = (PathBuf, SystemTime);

/// A loader of models from a folder into a store.
pub(crate) struct Reloader {
    dir: PathBuf,
    loader: Loader,
    store: Arc<ModelStore>,
    /// The catalogue, whose items every loaded model receives.
    catalogue: Option<Arc<Catalogue>>,
    loaded: Stamp,
    /// Files of the run and of the checkpoint at the last failed load. One of them must change
    /// before the next attempt. `None` if the last load succeeded.
    failed: Option<Vec<Stamp>>,
}

impl Reloader {
    pub(crate) fn open(dir: &Path, llm: Option<&Path>, device: &Device) -> Result<Self> {
        // Read the time before loading, so that files which are written meanwhile count as new.
        let loaded = stamp(dir)?;
        let mut loader = Loader::new(llm, device);
        let store = Arc::new(ModelStore::new(Model::new(loader.open(dir)?, dir, 1)?));
        let dir = dir.to_owned();
        Ok(Self { dir, loader, store, catalogue: None, loaded, failed: None })
    }

    pub(crate) fn store(&self) -> &Arc<ModelStore> {
        &self.store
    }

    /// Passes later models to a catalogue, which adds its items.
    pub(crate) fn publish_by(&mut self, catalogue: &Arc<Catalogue>) {
        self.catalogue = Some(Arc::clone(catalogue));
    }

    /// Loads the folder's model if it differs from the current one, and returns whether a model was
    /// loaded. A model that could not be loaded is tried again when a file of the run or of the
    /// checkpoint changes.
    fn refresh(&mut self) -> Result<bool> {
        let mut files = files_of(&self.dir);
        files.extend(self.loader.llm().into_iter().flat_map(files_of));
        if self.failed.as_ref() == Some(&files) {
            return Ok(false);
        }
        let refreshed = self.load_new();
        self.failed = refreshed.is_err().then_some(files);
        refreshed
    }

    fn load_new(&mut self) -> Result<bool> {
        let stamp = stamp(&self.dir)?;
        if stamp == self.loaded {
            return Ok(false);
        }
        let recommender = self.loader.open(&self.dir)?;
        let model = Model::new(recommender, &self.dir, self.store.current().version + 1)?;
        match &self.catalogue {
            Some(catalogue) => catalogue.publish(model),
            None => self.store.publish(model),
        }
        self.loaded = stamp;
        Ok(true)
    }
}

fn stamp(dir: &Path) -> Result<Stamp> {
    let file = dir.join(LAST_FILE);
    let io = |source| Error::Io { path: file.clone(), source };
    let path = file.canonicalize().map_err(io)?;
    let mut time = path.metadata().and_then(|m| m.modified()).map_err(io)?;
    for name in REPLACED {
        // A run may lack some of the files.
        if let Ok(written) = dir.join(name).metadata().and_then(|m| m.modified()) {
            time = time.max(written);
        }
    }
    Ok((path, time))
}

/// Returns the files of a folder with their times; empty if the folder cannot be listed.
fn files_of(dir: &Path) -> Vec<Stamp> {
    let entries = dir.canonicalize().and_then(std::fs::read_dir);
    let mut files: Vec<Stamp> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?)))
        .collect();
    files.sort_unstable();
    files
}

/// The thread that checks the folder. The thread ends when the watcher is dropped.
pub(crate) struct Watcher {
    _stop: Sender<()>,
}

impl Watcher {
    /// Starts a thread that checks the folder once per `interval`.
    pub(crate) fn start(
        mut reloader: Reloader,
        interval: Duration,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        const NAME: &str = "glta-watch";
        let (stop, stopped) = channel::<()>();
        let metrics = metrics.clone();
        let work = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                look(&mut reloader, &metrics);
            }
        };
        let spawned = thread::Builder::new().name(NAME.into()).spawn(work);
        spawned.map_err(|source| Error::Thread { name: NAME, source })?;
        Ok(Self { _stop: stop })
    }
}

/// Replaces the model by a new one if the folder contains one. The old model stays if the new one
/// cannot be loaded.
fn look(reloader: &mut Reloader, metrics: &Metrics) {
    match reloader.refresh() {
        Ok(false) => {}
        Ok(true) => {
            metrics.reloads.inc();
            let version = reloader.store.current().version;
            tracing::info!("loaded model {version} from {}", reloader.dir.display());
        }
        Err(error) => tracing::warn!("the new model is not used: {}", with_causes(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::support;

    #[test]
    fn an_unchanged_folder_keeps_its_model_and_a_new_file_is_loaded() {
        let run = support::run();
        let mut reloader = Reloader::open(run.path(), None, &support::CPU).unwrap();
        let store = reloader.store().clone();
        let first = store.current();
        assert!(!reloader.refresh().unwrap());
        assert!(Arc::ptr_eq(&first, &store.current()));

        let later = SystemTime::now() + Duration::from_secs(5);
        let file = fs::File::options().append(true).open(run.path().join(LAST_FILE)).unwrap();
        file.set_modified(later).unwrap();
        assert!(reloader.refresh().unwrap());
        assert_eq!(store.current().version, 2);
        assert!(!reloader.refresh().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_changed_link_is_followed() {
        let (run, folder) = (support::run(), tempfile::tempdir().unwrap());
        let (one, two, link) =
            (folder.path().join("1"), folder.path().join("2"), folder.path().join("current"));
        support::copy(run.path(), &one);
        support::copy(run.path(), &two);
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let mut reloader = Reloader::open(&link, None, &support::CPU).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(reloader.refresh().unwrap());
        assert_eq!(reloader.store().current().version, 2);
    }

    #[test]
    fn a_damaged_model_is_tried_once_and_the_old_one_stays() {
        let run = support::run();
        let mut reloader = Reloader::open(run.path(), None, &support::CPU).unwrap();
        let store = reloader.store().clone();
        let path = run.path().join(LAST_FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, b"no tensors").unwrap();
        assert!(reloader.refresh().is_err());
        assert!(!reloader.refresh().unwrap());
        assert_eq!(store.current().version, 1);
        assert!(store.current().read().recommend(0, 3).is_ok());
        fs::remove_file(&path).unwrap();
        assert!(matches!(reloader.refresh(), Err(Error::Io { .. })));
        assert!(!reloader.refresh().unwrap());

        // After a change of any file the model is tried again.
        fs::write(&path, whole).unwrap();
        let items = run.path().join("items.jsonl");
        let hidden = run.path().join("hidden");
        fs::rename(&items, &hidden).unwrap();
        assert!(matches!(reloader.refresh(), Err(Error::Align(_))));
        assert!(!reloader.refresh().unwrap());
        fs::rename(&hidden, &items).unwrap();
        let metrics = Metrics::default();
        look(&mut reloader, &metrics);
        assert_eq!((store.current().version, metrics.reloads.get()), (2, 1));
    }
}
