//! The model that answers.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::Model;

/// Holds the current model.
pub(crate) struct ModelStore {
    current: ArcSwap<Model>,
}

impl ModelStore {
    pub(crate) fn new(model: Model) -> Self {
        Self { current: ArcSwap::from_pointee(model) }
    }

    /// The model that answers new requests.
    pub(crate) fn current(&self) -> Arc<Model> {
        self.current.load_full()
    }

    /// Replaces the model for new requests.
    pub(crate) fn publish(&self, model: Model) {
        self.current.store(Arc::new(model));
    }
}
