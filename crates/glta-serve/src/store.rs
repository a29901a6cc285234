//! Stores the model that answers new requests.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::Model;

/// A container of the current model, which can be replaced while requests are answered.
pub(crate) struct ModelStore {
    current: ArcSwap<Model>,
}

impl ModelStore {
    pub(crate) fn new(model: Model) -> Self {
        Self { current: ArcSwap::from_pointee(model) }
    }

    /// Returns the model that answers new requests.
    pub(crate) fn current(&self) -> Arc<Model> {
        self.current.load_full()
    }

    /// Replaces the model for new requests.
    pub(crate) fn publish(&self, model: Model) {
        self.current.store(Arc::new(model));
    }
}
