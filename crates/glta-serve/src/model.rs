//! A loaded model.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use glta_align::Recommender;
use glta_data::Item;

use crate::Result;
use crate::about::About;
use crate::bodies::Entry;
use crate::search::Search;

/// A recommender and its number.
pub(crate) struct Model {
    recommender: RwLock<Recommender>,
    search: RwLock<Search>,
    users: usize,
    items: AtomicUsize,
    /// Number of this model since the start, from 1, which is part of every answer.
    pub(crate) version: u64,
    /// The folder, without links.
    pub(crate) folder: PathBuf,
    /// Whether the recommender can add items.
    pub(crate) grows: bool,
    /// Whether its answers run a prompt.
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

    /// The same model with another recommender of its folder.
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

    /// The recommender; hold the lock only while a request computes.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Recommender> {
        self.recommender.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Recommender> {
        self.recommender.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of users and of items, without waiting.
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

/// An item of the catalogue in the form of answers.
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
