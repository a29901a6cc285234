//! A loaded model as requests use it.

use glta_align::Recommender;

use crate::bodies::Entry;

/// A recommender and its number.
pub(crate) struct Model {
    pub(crate) recommender: Recommender,
    /// Number of this load since the start, from 1; answers name it.
    pub(crate) version: u64,
}

impl Model {
    pub(crate) fn new(recommender: Recommender, version: u64) -> Self {
        Self { recommender, version }
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
