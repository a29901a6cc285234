use std::sync::Arc;

use candle_core::Device;

use crate::config::ServeConfig;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue::Queue;
use crate::reload::{ModelStore, Reloader, Watcher};
use crate::{Result, worker};

/// A loaded model with its threads: one answers, one watches the folder for a new model.
///
/// Clones share both threads, which end when the last clone and the last router made from
/// one are dropped.
#[derive(Clone)]
pub struct Service(Arc<State>);

/// What handlers share.
struct State {
    config: ServeConfig,
    models: Arc<ModelStore>,
    queue: Queue,
    metrics: Arc<Metrics>,
    _watcher: Watcher,
}

impl Service {
    /// Loads the model of `config.model` and starts the threads. A language model runs on
    /// `device`. This blocks while the model loads.
    ///
    /// # Errors
    /// A setting that cannot work, a run or a language model that cannot be loaded, or one
    /// that is needed and not named.
    pub fn start(config: ServeConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let reloader = Reloader::open(&config.model, config.llm.as_deref(), device)?;
        let (models, metrics) = (reloader.store().clone(), Arc::new(Metrics::default()));
        let watcher = Watcher::start(reloader, config.watch(), &metrics)?;
        let (queue, receiver) = Queue::new(config.queue, &metrics);
        worker::start(receiver, config.batch, config.batch_wait(), &metrics)?;
        Ok(Self(Arc::new(State { config, models, queue, metrics, _watcher: watcher })))
    }

    /// The settings it was started with.
    pub fn config(&self) -> &ServeConfig {
        &self.0.config
    }

    /// The model that answers new requests.
    pub(crate) fn model(&self) -> Arc<Model> {
        self.0.models.current()
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}
