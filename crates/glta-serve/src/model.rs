//! A loaded model with its description and search index.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use glta_align::Recommender;
use glta_data::Item;

use crate::Result;
use crate::about::About;
use crate::bodies::Entry;
use crate::search::Search;

/// A recommender with its number, folder and description.
pub(crate) struct Model {
    recommender: RwLock<Recommender>,
    search: RwLock<Search>,
    users: usize,
    items: AtomicUsize,
    /// Number of the model, counted from the start of the service, which is part of every answer.
    pub(crate) version: u64,
    /// Path of the folder, without links.
    pub(crate) folder: PathBuf,
    /// Whether the recommender can add items in place.
    pub(crate) grows: bool,
    /// Whether the recommender runs the language model on a prompt for each answer.
    pub(crate) prompts: bool,
    pub(crate) about: About,
}

impl Model {
    pub(crate) fn new(recommender: Recommender, folder: &Path, version: u64) -> Result<Self> {
        let folder = folder
            .canonicalize()
            .map_err(|source| crate::Error::Io { path: folder.to_owned(), source })?;
        let search = RwLock::new(Search::new(recommender.items()));
        let about = About::of(&folder)?;
        Ok(Self {
            search,
            users: recommender.users().len(),
            items: recommender.items().len().into(),
            prompts: recommender.has_prompt(),
            recommender: recommender.into(),
            version,
            folder,
            grows: false,
            about,
        })
    }

    /// Returns a copy of the model with `recommender`, which was opened from the same folder and
    /// can add items in place.
    pub(crate) fn grown(&self, recommender: Recommender) -> Self {
        Self {
            search: RwLock::new(Search::new(recommender.items())),
            users: recommender.users().len(),
            items: recommender.items().len().into(),
            prompts: recommender.has_prompt(),
            recommender: recommender.into(),
            version: self.version,
            folder: self.folder.clone(),
            grows: true,
            about: self.about.clone(),
        }
    }

    /// Returns the recommender, locked for reading. Hold the lock only while a request computes.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Recommender> {
        self.recommender.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Recommender> {
        self.recommender.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of users and of items, without waiting.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.users, self.items.load(Ordering::Relaxed))
    }

    /// Adds an item to a recommender that can do so in place.
    pub(crate) fn add_item(&self, item: &Item) -> glta_align::Result<()> {
        let mut recommender = self.write();
        recommender.add_items(std::slice::from_ref(item))?;
        self.search_mut().follow(recommender.items());
        self.items.store(recommender.items().len(), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn search(&self) -> RwLockReadGuard<'_, Search> {
        self.search.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn search_mut(&self) -> RwLockWriteGuard<'_, Search> {
        self.search.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an item of the catalogue in the form of answers.
pub(crate) fn entry(recommender: &Recommender, item: u32, score: Option<f32>) -> Entry {
    let record = &recommender.items()[item as usize];
    Entry {
        item: record.raw_id.clone(),
        title: record.title.clone(),
        text: record.text.clone(),
        fields: record.fields.clone(),
        score,
    }
}
