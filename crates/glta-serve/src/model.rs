//! A loaded model as requests use it.

use std::collections::HashMap;

use glta_align::Recommender;

use crate::bodies::Entry;

/// A recommender, the ids of its items, and its number.
pub(crate) struct Model {
    pub(crate) recommender: Recommender,
    /// Number of this load since the start, from 1; answers name it.
    pub(crate) version: u64,
    items: HashMap<String, u32>,
}

impl Model {
    pub(crate) fn new(recommender: Recommender, version: u64) -> Self {
        let items = recommender.items().iter().zip(0u32..);
        let items = items.map(|(item, id)| (item.raw_id.clone(), id)).collect();
        Self { recommender, version, items }
    }

    /// Dense id of a raw item id.
    pub(crate) fn item(&self, raw_id: &str) -> Option<u32> {
        self.items.get(raw_id).copied()
    }

    /// An item of the catalogue as answers show it.
    pub(crate) fn entry(&self, item: u32, score: Option<f32>) -> Entry {
        let record = &self.recommender.items()[item as usize];
        Entry {
            item: record.raw_id.clone(),
            title: record.title.clone(),
            text: record.text.clone(),
            score,
        }
    }
}
