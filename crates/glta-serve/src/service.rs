use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use axum::http::StatusCode;
use candle_core::Device;
use glta_core::{TextEncoder, with_causes};
use glta_data::Item;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::api_error::{ApiError, ApiResult};
use crate::catalogue::{Catalogue, Encoders};
use crate::config::ServeConfig;
use crate::journal::{Journal, Op, Writer, path_for};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::people::People;
use crate::queue::Queue;
use crate::refused::{not_taken, refused};
use crate::reload::{Reloader, Watcher};
use crate::store::ModelStore;
use crate::{Error, Result, worker};

/// A loaded model with its threads: one runs the model, one watches the folder for a new model, and
/// two process writes.
///
/// Clones share the threads, which end when the last clone and the last of its routers are dropped.
///
/// ```
/// use candle_core::Device;
/// use glta_serve::{ServeConfig, Service};
///
/// let missing = ServeConfig { model: "runs/no-such-run".into(), ..ServeConfig::default() };
/// assert!(Service::start(missing, &Device::Cpu).is_err());
/// ```
#[derive(Clone)]
pub struct Service(Arc<State>);

/// The state that all handlers share.
struct State {
    config: ServeConfig,
    models: Arc<ModelStore>,
    queue: Queue,
    people: Arc<RwLock<People>>,
    catalogue: Arc<Catalogue>,
    writer: Writer,
    puts: mpsc::Sender<Put>,
    /// One permit per computation that may wait.
    waiting: Arc<Semaphore>,
    /// One permit per computation that may run.
    running: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    _watcher: Watcher,
}

/// An item for the catalogue and the journal. The reply states whether the item is new.
struct Put {
    item: Item,
    reply: oneshot::Sender<ApiResult<bool>>,
}

impl Service {
    /// Loads the model of `config.model` and starts the threads. A language model runs on `device`.
    /// The call blocks while the model is loaded.
    ///
    /// # Errors
    /// Returns an error for an invalid setting, a model or a language model that cannot be loaded,
    /// a language model that is needed but not configured, or a journal that cannot be used.
    pub fn start(config: ServeConfig, device: &Device) -> Result<Self> {
        Self::start_with(config, device, None)
    }

    /// Starts a service like [`start`](Self::start), with the sentence encoder for the texts of new
    /// items. Use this function for a model that was fitted with a sentence encoder.
    ///
    /// # Errors
    /// Returns the errors of [`start`](Self::start).
    pub fn start_with(
        config: ServeConfig,
        device: &Device,
        sentence: Option<Arc<dyn TextEncoder>>,
    ) -> Result<Self> {
        config.validate()?;
        let mut reloader = Reloader::open(&config.model, config.llm.as_deref(), device)?;
        let (models, metrics) = (reloader.store().clone(), Arc::new(Metrics::default()));
        let (journal, make) = journal(&config)?;
        let mut people = People::default();
        let mut put = Default::default();
        if let Some(journal) = &journal {
            people = People::new(journal.forgotten().clone());
            for event in journal.interactions()? {
                people.add(&event.user, &event.item);
            }
            put = journal.items()?;
        }
        let encoders = Encoders { llm: config.llm.clone(), device: device.clone(), sentence };
        let catalogue = Arc::new(Catalogue::new(models.clone(), encoders, put));
        catalogue.start();
        reloader.publish_by(&catalogue);
        let people = Arc::new(RwLock::new(people));
        let writer = Writer::start(journal, make, people.clone(), metrics.clone(), config.queue)?;
        let puts = take_in(catalogue.clone(), writer.clone(), config.queue)?;
        let watcher = Watcher::start(reloader, config.watch(), &metrics)?;
        let (queue, receiver) = Queue::new(config.queue, &metrics);
        worker::start(receiver, config.batch, config.batch_wait(), &metrics)?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(State {
            waiting: Arc::new(Semaphore::new(config.queue)),
            running: Arc::new(Semaphore::new(cores)),
            config,
            models,
            queue,
            people,
            catalogue,
            writer,
            puts,
            metrics,
            _watcher: watcher,
        })))
    }

    /// Returns the settings of the service.
    pub fn config(&self) -> &ServeConfig {
        &self.0.config
    }

    /// Returns the model that answers new requests.
    pub(crate) fn model(&self) -> Arc<Model> {
        self.0.models.current()
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Returns the writes about users.
    pub(crate) fn people(&self) -> RwLockReadGuard<'_, People> {
        self.0.people.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.0.writer
    }

    /// Returns the number of items that were added or changed.
    pub(crate) fn items_put(&self) -> usize {
        self.0.catalogue.len()
    }

    /// Adds or changes an item, and returns whether it is new.
    pub(crate) async fn put(&self, item: Item) -> ApiResult<bool> {
        let (reply, answer) = oneshot::channel();
        self.0.puts.try_send(Put { item, reply }).map_err(|e| match e {
            TrySendError::Full(_) => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many writes are waiting")
            }
            TrySendError::Closed(_) => ApiError::internal("the catalogue's thread has ended"),
        })?;
        answer.await.map_err(ApiError::internal)?
    }

    /// Runs a computation on a separate thread. At most as many computations as cores run at a
    /// time.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let full =
            |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting");
        let waits = self.0.waiting.clone().try_acquire_owned().map_err(full)?;
        let running = self.0.running.clone();
        let timeout = self.config().timeout();
        let computed = async move {
            let runs = running.acquire_owned().await;
            let computed = tokio::task::spawn_blocking(move || {
                let _held = (waits, runs);
                work()
            });
            computed.await.map_err(ApiError::internal)?
        };
        let late =
            |_| ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {timeout:?}"));
        tokio::time::timeout(timeout, computed).await.map_err(late)?
    }
}

/// Returns the configured journal, or the default one if it exists, and a function that creates the
/// journal at the first write.
fn journal(
    config: &ServeConfig,
) -> Result<(Option<Journal>, impl Fn() -> Result<Journal> + Send + 'static)> {
    let io = |source| Error::Io { path: config.model.clone(), source };
    let path = match &config.journal {
        Some(path) => path.clone(),
        None => path_for(&config.model).map_err(io)?,
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let model = config.model.canonicalize().map_err(io)?;
    if folder.canonicalize().is_ok_and(|folder| folder.starts_with(&model)) {
        return Err(Error::Journal {
            path,
            problem: "it must not be inside the model's folder, which the next model replaces"
                .into(),
        });
    }
    let there = config.journal.is_some() || path.exists();
    let journal = there.then(|| Journal::open(&path)).transpose()?;
    Ok((journal, move || Journal::open(&path)))
}

/// Starts the thread that adds items to the catalogue and then writes them to the journal. An
/// addition can take long, so it does not run on the threads of the server.
fn take_in(catalogue: Arc<Catalogue>, writer: Writer, queue: usize) -> Result<mpsc::Sender<Put>> {
    const NAME: &str = "glta-items";
    let (sender, mut receiver) = mpsc::channel::<Put>(queue);
    let work = move || {
        while let Some(Put { item, reply }) = receiver.blocking_recv() {
            let op = Op::Item(Box::new(item.clone()));
            let taken = catalogue.put(item).map_err(|error| {
                tracing::warn!("an item was rejected: {}", with_causes(&error));
                not_taken(&error)
            });
            let written =
                taken.and_then(|new| writer.write_blocking(op).map(|_| new).map_err(refused));
            // Ignore the error, because the client may have disconnected.
            let _ = reply.send(written);
        }
    };
    let spawned = thread::Builder::new().name(NAME.into()).spawn(work);
    spawned.map_err(|source| Error::Thread { name: NAME, source })?;
    Ok(sender)
}
