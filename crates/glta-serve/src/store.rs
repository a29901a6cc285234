//! The model that answers.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::Model;

/// Has the current model.
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

    /// Gives new requests another model.
    pub(crate) fn publish(&self, model: Model) {
        self.current.store(Arc::new(model));
    }
}
