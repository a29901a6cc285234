//! The current model, and its replacement when the run's folder has a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use candle_core::Device;

use crate::load;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::{Error, Result};
use glta_core::with_causes;

/// The file that a run writes last.
const LAST_FILE: &str = "history.json";
/// Files of a model that may be replaced by themselves.
const REPLACED: [&str; 2] = ["model.safetensors", "linear.safetensors"];

/// Distinguishes a new model from the one that was loaded: the file behind the links, and
/// when the last of the model's files was written.
type Stamp = (PathBuf, SystemTime);

/// Loads models from a folder and has the current one.
pub(crate) struct ModelStore {
    dir: PathBuf,
    llm: Option<PathBuf>,
    device: Device,
    current: ArcSwap<(Stamp, Arc<Model>)>,
}

impl ModelStore {
    pub(crate) fn open(dir: &Path, llm: Option<&Path>, device: &Device) -> Result<Self> {
        // Before loading: what is written meanwhile counts as new.
        let stamp = stamp(dir)?;
        let model = Model::new(load::recommender(dir, llm, device)?, 1);
        Ok(Self {
            dir: dir.to_owned(),
            llm: llm.map(Path::to_owned),
            device: device.clone(),
            current: ArcSwap::from_pointee((stamp, Arc::new(model))),
        })
    }

    /// The model that answers new requests.
    pub(crate) fn current(&self) -> Arc<Model> {
        self.current.load().1.clone()
    }

    /// Loads the folder's model if it is another one than the current; returns whether it is.
    fn refresh(&self) -> Result<bool> {
        let stamp = stamp(&self.dir)?;
        if stamp == self.current.load().0 {
            return Ok(false);
        }
        let recommender = load::recommender(&self.dir, self.llm.as_deref(), &self.device)?;
        let model = Model::new(recommender, self.current().version + 1);
        self.current.store(Arc::new((stamp, Arc::new(model))));
        Ok(true)
    }
}

fn stamp(dir: &Path) -> Result<Stamp> {
    let file = dir.join(LAST_FILE);
    let io = |source| Error::Io { path: file.clone(), source };
    let path = file.canonicalize().map_err(io)?;
    let mut time = path.metadata().and_then(|m| m.modified()).map_err(io)?;
    for name in REPLACED {
        // A run has not every file.
        if let Ok(written) = dir.join(name).metadata().and_then(|m| m.modified()) {
            time = time.max(written);
        }
    }
    Ok((path, time))
}

/// The thread that looks at the folder; it ends when this is dropped.
pub(crate) struct Watcher {
    _stop: Sender<()>,
}

impl Watcher {
    /// Looks at the store's folder once every `interval`.
    pub(crate) fn start(
        store: &Arc<ModelStore>,
        interval: Duration,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        const NAME: &str = "glta-watch";
        let (stop, stopped) = channel::<()>();
        let (store, metrics) = (store.clone(), metrics.clone());
        let work = move || {
            let mut failure = None;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                look(&store, &metrics, &mut failure);
            }
        };
        let spawned = thread::Builder::new().name(NAME.into()).spawn(work);
        spawned.map_err(|source| Error::Thread { name: NAME, source })?;
        Ok(Self { _stop: stop })
    }
}

/// Takes a new model over. A model that cannot be loaded is reported once, in `failure`, and
/// the old one stays.
fn look(store: &ModelStore, metrics: &Metrics, failure: &mut Option<String>) {
    match store.refresh() {
        Ok(false) => {}
        Ok(true) => {
            metrics.reloads.inc();
            *failure = None;
            let version = store.current().version;
            tracing::info!("loaded model {version} from {}", store.dir.display());
        }
        Err(error) => {
            let message = with_causes(&error);
            if failure.as_ref() != Some(&message) {
                tracing::warn!("the new model is not used: {message}");
                *failure = Some(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::support;

    /// Copies a run's files, with a new time of writing.
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
        }
    }

    #[test]
    fn an_unchanged_folder_keeps_its_model_and_a_new_file_is_loaded() {
        let run = support::run();
        let store = ModelStore::open(run.path(), None, &support::CPU).unwrap();
        let first = store.current();
        assert!(!store.refresh().unwrap());
        assert!(Arc::ptr_eq(&first, &store.current()));

        let later = SystemTime::now() + Duration::from_secs(5);
        let file = fs::File::options().append(true).open(run.path().join(LAST_FILE)).unwrap();
        file.set_modified(later).unwrap();
        assert!(store.refresh().unwrap());
        assert_eq!(store.current().version, 2);
        assert!(!store.refresh().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_elsewhere_is_followed() {
        let (run, folder) = (support::run(), tempfile::tempdir().unwrap());
        let (one, two, link) =
            (folder.path().join("1"), folder.path().join("2"), folder.path().join("current"));
        copy(run.path(), &one);
        copy(run.path(), &two);
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let store = ModelStore::open(&link, None, &support::CPU).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(store.refresh().unwrap());
        assert_eq!(store.current().version, 2);
    }

    #[test]
    fn a_damaged_model_is_reported_once_and_the_old_one_stays() {
        let run = support::run();
        let store = ModelStore::open(run.path(), None, &support::CPU).unwrap();
        let metrics = Metrics::default();
        fs::write(run.path().join(LAST_FILE), b"no tensors").unwrap();
        let mut failure = None;
        look(&store, &metrics, &mut failure);
        let message = failure.clone().unwrap();
        look(&store, &metrics, &mut failure);
        assert_eq!(failure, Some(message));
        assert_eq!(store.current().version, 1);
        assert!(store.current().recommender.recommend(0, 3).is_ok());
        fs::remove_file(run.path().join(LAST_FILE)).unwrap();
        assert!(matches!(store.refresh(), Err(Error::Io { .. })));
        assert_eq!(metrics.reloads.get(), 0);
    }
}
