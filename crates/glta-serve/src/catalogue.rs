//! Items that were added or changed. The current model and every later one receive them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use glta_align::{GrowthEncoders, LanguageModel, Recommender};
use glta_core::{TextEncoder, with_causes};
use glta_data::Item;

use crate::model::Model;
use crate::search::Search;
use crate::store::ModelStore;

/// Text encoders for new items, other than those in the model's folder.
#[derive(Clone)]
pub(crate) struct Encoders {
    /// Folder of the checkpoint of the language model.
    pub(crate) llm: Option<PathBuf>,
    pub(crate) device: Device,
    pub(crate) sentence: Option<Arc<dyn TextEncoder>>,
}

/// The items that were added or changed, and the store of the models that receive them.
pub(crate) struct Catalogue {
    store: Arc<ModelStore>,
    encoders: Encoders,
    put: Mutex<BTreeMap<String, Item>>,
    /// Number of items that were added or changed, for readers that must not wait for the lock.
    count: AtomicUsize,
}

impl Catalogue {
    /// Creates a catalogue. `put` contains the items of the journal.
    pub(crate) fn new(
        store: Arc<ModelStore>,
        encoders: Encoders,
        put: BTreeMap<String, Item>,
    ) -> Self {
        Self { store, encoders, count: put.len().into(), put: put.into() }
    }

    /// Returns the number of items that were added or changed.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds all items of the catalogue to a loaded model and makes it the current model.
    pub(crate) fn publish(&self, model: Model) {
        let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = self.take_in(&model, &put);
        self.store.publish(grown.unwrap_or(model));
    }

    /// Adds the items of the journal to the current model.
    pub(crate) fn start(&self) {
        let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grown) = self.take_in(&self.store.current(), &put) {
            self.store.publish(grown);
        }
    }

    /// Adds the items in `put` to a model. Returns a new model with the items if `model` lacks some
    /// of them, and otherwise updates the items of `model` in place. Logs a warning if the items
    /// cannot be added.
    fn take_in(&self, model: &Model, put: &BTreeMap<String, Item>) -> Option<Model> {
        if put.is_empty() {
            return None;
        }
        if put.keys().any(|id| model.read().item(id).is_none()) {
            match self.grown(model, put) {
                Ok(grown) => return Some(grown),
                Err(error) => tracing::warn!(
                    "model {} lacks items of the journal: {}",
                    model.version,
                    with_causes(&error)
                ),
            }
        }
        replace_known(&mut model.write(), put.values());
        *model.search_mut() = Search::new(model.read().items());
        None
    }

    /// Adds or changes an item, and returns whether it is new.
    pub(crate) fn put(&self, item: Item) -> glta_align::Result<bool> {
        let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let model = self.store.current();
        let known = model.read().item(&item.raw_id);
        let mut with = put.clone();
        with.insert(item.raw_id.clone(), item.clone());
        if let Some(id) = known {
            model.write().replace_item(&item)?;
            model.search_mut().replace(id, &model.read().items()[id as usize]);
        } else if model.grows && model.read().grows_in_place() {
            model.add_item(&item)?;
        } else {
            // Change a copy, because this takes long and the model must answer.
            self.store.publish(self.grown(&model, &with)?);
        }
        self.count.store(with.len(), Ordering::Relaxed);
        *put = with;
        Ok(known.is_none())
    }

    /// Returns a model of the same folder to which the items in `put` were added.
    fn grown(&self, model: &Model, put: &BTreeMap<String, Item>) -> glta_align::Result<Model> {
        if model.read().has_prompt() {
            return Err(glta_align::Error::Unsupported(
                "new items need a model that answers without a prompt; `glta fit` makes one".into(),
            ));
        }
        let mut recommender = Recommender::open(&model.folder)?;
        let config = recommender.config();
        let language = match &self.encoders.llm {
            Some(dir) if config.language_model_reads_items() => {
                let mut options = config.llm.clone();
                options.layers = Some(config.item_text.language_model.depth());
                Some(LanguageModel::load(dir, &options, &self.encoders.device)?)
            }
            _ => None,
        };
        let sentence = self.encoders.sentence.clone();
        recommender.grow(GrowthEncoders { language: language.as_ref(), sentence })?;
        replace_known(&mut recommender, put.values());
        let new = put.values().filter(|item| recommender.item(&item.raw_id).is_none());
        let new: Vec<Item> = new.cloned().collect();
        recommender.add_items(&new)?;
        Ok(model.grown(recommender))
    }
}

fn replace_known<'a>(recommender: &mut Recommender, items: impl Iterator<Item = &'a Item>) {
    for item in items {
        // The recommender rejects unknown items.
        let _ = recommender.replace_item(item);
    }
}
