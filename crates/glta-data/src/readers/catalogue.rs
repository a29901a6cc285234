use super::html::clean;
use super::json::Texts;
use crate::dataset::Collector;
use crate::{Dataset, Item, Result};

/// Items' texts as they come by raw id, for the items of some interactions.
pub(crate) struct Catalogue {
    collector: Collector,
    items: Vec<Option<Item>>,
    repeated: usize,
}

impl Catalogue {
    pub(crate) fn new(collector: Collector) -> Self {
        Self { items: vec![None; collector.items.len()], collector, repeated: 0 }
    }

    /// Takes an item if it has interactions; of repeated ones the first counts.
    pub(crate) fn add(&mut self, raw_id: &str, item: impl FnOnce() -> Item) {
        if let Some(id) = self.collector.items.get(raw_id) {
            match &mut self.items[id as usize] {
                Some(_) => self.repeated += 1,
                slot => *slot = Some(item()),
            }
        }
    }

    /// Changes an item that was taken.
    pub(crate) fn update(&mut self, raw_id: &str, change: impl FnOnce(&mut Item)) {
        if let Some(id) = self.collector.items.get(raw_id)
            && let Some(item) = &mut self.items[id as usize]
        {
            change(item);
        }
    }

    /// The data set; items that never came have only their id.
    pub(crate) fn finish(mut self, name: impl Into<String>) -> Result<Dataset> {
        let name = name.into();
        let missing = self.items.iter().filter(|item| item.is_none()).count();
        if missing > 0 || self.repeated > 0 {
            tracing::warn!(
                dataset = name,
                missing,
                repeated = self.repeated,
                "items without metadata have no text; of repeated metadata the first was taken"
            );
        }
        self.collector.finish(name, |id, raw| {
            self.items[id as usize].take().unwrap_or_else(|| Item::new(raw))
        })
    }
}

/// An item with cleaned title and description.
pub(crate) fn described(id: &str, title: &Texts, description: &Texts) -> Item {
    let mut item = Item::new(id);
    let raw_title = title.0.join(" ");
    // Some pages were scraped with the script in the title's place.
    if !raw_title.contains("getTime()") {
        item.title = clean(&raw_title);
    }
    item.description = description.joined(" ");
    item
}
