//! Finds similar items.

use std::path::PathBuf;
use std::sync::OnceLock;

use glta_data::Interactions;
use glta_gllm::Ranked;
use glta_linear::TextVectors;
use ndarray::ArrayView1;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::Result;

/// A measure of the similarity of two items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Similarity {
    /// The cosine of the text vectors of both items. It is also defined for cold items.
    #[default]
    Text,
    /// The number of common users, normalised: `common / √(users of one · users of the other)`.
    CoInteractions,
}

/// Data for finding similar items, read or computed on first use.
#[derive(Debug, Default)]
pub(crate) struct Similar {
    /// Folder of the run, from which text vectors are read.
    pub(crate) folder: Option<PathBuf>,
    text: OnceLock<Option<TextVectors>>,
    users_of: OnceLock<Interactions>,
}

impl Similar {
    pub(crate) fn of(folder: Option<PathBuf>) -> Self {
        Self { folder, ..Self::default() }
    }

    /// Returns the text vectors, if the run has some.
    pub(crate) fn text(
        &self,
        load: impl FnOnce(&std::path::Path) -> Result<Option<TextVectors>>,
    ) -> Result<Option<&TextVectors>> {
        if let Some(text) = self.text.get() {
            return Ok(text.as_ref());
        }
        let text = match &self.folder {
            Some(folder) => load(folder)?,
            None => None,
        };
        Ok(self.text.get_or_init(|| text).as_ref())
    }

    pub(crate) fn users_of(&self, train: &Interactions) -> &Interactions {
        self.users_of.get_or_init(|| train.transpose())
    }
}

/// Returns the cosines between one item and every other item of a catalogue of `items` items.
/// Returns no items if the item has no text.
pub(crate) fn by_text<'a>(
    items: usize,
    vector: impl Fn(u32) -> &'a [f32] + Sync,
    item: u32,
) -> Vec<Ranked> {
    let own = ArrayView1::from(vector(item));
    let length = own.dot(&own).sqrt();
    if length == 0.0 {
        return Vec::new();
    }
    (0..items as u32)
        .into_par_iter()
        .with_min_len(2048)
        .filter(|&other| other != item)
        .map(|other| {
            let row = ArrayView1::from(vector(other));
            let other_length = row.dot(&row).sqrt();
            let score = row.dot(&own) / (length * other_length.max(f32::MIN_POSITIVE));
            Ranked { item: other, score }
        })
        .filter(|ranked| ranked.score > 0.0)
        .collect()
}

/// Returns the items that have users in common with an item, each with the normalised number of
/// common users.
pub(crate) fn by_people(train: &Interactions, users_of: &Interactions, item: u32) -> Vec<Ranked> {
    let mut both: FxHashMap<u32, u32> = FxHashMap::default();
    for &user in users_of.items(item) {
        train.items(user).iter().for_each(|&other| *both.entry(other).or_default() += 1);
    }
    let people = |item: u32| users_of.items(item).len() as f32;
    let ranked = both.into_iter().filter(|&(other, _)| other != item).map(|(other, both)| Ranked {
        item: other,
        score: both as f32 / (people(item) * people(other)).sqrt(),
    });
    ranked.collect()
}

/// Returns the best `k` items, best first. Ties go to the lower id.
pub(crate) fn best(mut ranked: Vec<Ranked>, k: usize) -> Vec<Ranked> {
    ranked.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
    ranked.truncate(k);
    ranked
}
