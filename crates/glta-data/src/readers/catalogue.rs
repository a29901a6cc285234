use rustc_hash::FxHashMap;

use super::html::clean;
use super::json::Texts;
use crate::dataset::Collector;
use crate::ids::{is_missing, shortest};
use crate::report::{EXAMPLES, FileReport, Note};
use crate::{Dataset, Error, Item, Result};

/// A collection of the records of items, from which the items of a data set are created.
pub(crate) struct Catalogue {
    collector: Collector,
    items: Vec<Option<Item>>,
    /// Whether the data set also contains the items without interactions.
    all: bool,
    records: u64,
    repeated: Tally,
    /// Records of items without interactions.
    without: Tally,
    /// Records of items without interactions whose id equals that of a known item except for
    /// leading zeros and `.0`.
    nearly: Tally,
    /// Dense ids of the items whose raw id has leading zeros or `.0`, by the raw id without these.
    short: Option<FxHashMap<String, u32>>,
}

/// A count of records, with the first few as examples.
#[derive(Default)]
struct Tally {
    count: u64,
    examples: Vec<String>,
}

impl Tally {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

impl Catalogue {
    /// Creates a catalogue for the items that have interactions. Records of other items are
    /// omitted.
    pub(crate) fn new(collector: Collector) -> Self {
        Self {
            items: vec![None; collector.items.len()],
            collector,
            all: false,
            records: 0,
            repeated: Tally::default(),
            without: Tally::default(),
            nearly: Tally::default(),
            short: None,
        }
    }

    /// Keeps items without interactions, too.
    pub(crate) fn with_all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Adds an item if it has interactions or if all items are kept. If an item is repeated, the
    /// first record counts.
    pub(crate) fn add(&mut self, raw_id: &str, item: impl FnOnce() -> Item) -> Result<()> {
        self.records += 1;
        let Some(id) = self.collector.items.get(raw_id) else {
            return self.unknown(raw_id, item);
        };
        match &mut self.items[id as usize] {
            Some(_) => self.repeated.add(|| raw_id.to_owned()),
            slot => *slot = Some(item()),
        }
        Ok(())
    }

    /// Counts a record of an item without interactions, and adds the item if all are kept.
    fn unknown(&mut self, raw_id: &str, item: impl FnOnce() -> Item) -> Result<()> {
        if is_missing(raw_id) {
            return Err(Error::MissingId { kind: "item", raw: raw_id.to_owned() });
        }
        self.without.add(|| raw_id.to_owned());
        let collector = &self.collector;
        let short = self.short.get_or_insert_with(|| {
            let ids = (0..collector.items.len() as u32).map(|id| (id, collector.items.raw(id)));
            let long = ids.filter(|(_, raw)| shortest(raw) != *raw);
            long.map(|(id, raw)| (shortest(raw).to_owned(), id)).collect()
        });
        let wanted = shortest(raw_id);
        let other = short.get(wanted).copied().or_else(|| collector.items.get(wanted));
        if let Some(other) = other {
            let raw = collector.items.raw(other);
            self.nearly.add(|| format!("`{raw}` and `{raw_id}`"));
        }
        if self.all {
            self.collector.items.intern(raw_id)?;
            self.items.push(Some(item()));
        }
        Ok(())
    }

    /// Changes an item that was added before. Does nothing if it was not added.
    pub(crate) fn update(&mut self, raw_id: &str, change: impl FnOnce(&mut Item)) {
        if let Some(id) = self.collector.items.get(raw_id)
            && let Some(item) = &mut self.items[id as usize]
        {
            change(item);
        }
    }

    /// Adds a note about omitted records of a file to the report.
    pub(crate) fn warn(&mut self, file: &str, note: Note) {
        self.collector.report.warn(file, note);
    }

    /// Adds the file of the records to the report.
    pub(crate) fn read(&mut self, file: FileReport) {
        tracing::info!("{}: read as {}, {} records", file.file, file.layout, file.rows);
        self.collector.report.files.push(file);
    }

    /// Creates the data set. An item without a record has only its id.
    ///
    /// # Errors
    /// Returns [`Error::NothingJoins`] if there are records, but none describes an item with
    /// interactions.
    pub(crate) fn finish(mut self, name: impl Into<String>) -> Result<Dataset> {
        let name = name.into();
        let rated =
            self.collector.items.len() as u64 - if self.all { self.without.count } else { 0 };
        let mut missing = Tally::default();
        for (id, item) in (0..).zip(&self.items) {
            if item.is_none() {
                missing.add(|| self.collector.items.raw(id).to_owned());
            }
        }
        self.check_join(&name, rated, &missing)?;
        let records = self.records;
        let report = &mut self.collector.report;
        if missing.count > 0 {
            let text = "items have no metadata, so they have no text";
            let note = Note::new("items_without_metadata", missing.count, Some(rated), text);
            report.warn(&name, note.examples(missing.examples));
        }
        if self.nearly.count > 0 {
            let text = "records have an id that differs from that of an item with interactions \
                        only by leading zeros or a `.0` at the end";
            let note = Note::new("ids_nearly_alike", self.nearly.count, Some(records), text);
            report.warn(&name, note.examples(self.nearly.examples));
        }
        if self.repeated.count > 0 {
            let text = "records repeat an item; the first of each counts";
            let note = Note::new("repeated_metadata", self.repeated.count, Some(records), text);
            report.warn(&name, note.examples(self.repeated.examples));
        }
        if self.without.count > 0 {
            let text = if self.all {
                "items of the metadata have no interactions; they are kept"
            } else {
                "records are about items without interactions; they are left out"
            };
            let note = Note::new("metadata_without_item", self.without.count, Some(records), text);
            report.say(&name, note.examples(self.without.examples));
        }
        let mut items = self.items;
        let mut data = self
            .collector
            .finish(name, |id, raw| items[id as usize].take().unwrap_or_else(|| Item::new(raw)))?;
        let textless = data.items.iter().filter(|item| item.is_textless()).count() as u64;
        let beyond = textless - missing.count.min(textless);
        if beyond > 0 {
            let of = data.items.len() as u64;
            let text = "items have metadata without any text";
            let note = Note::new("items_without_text", beyond, Some(of), text);
            data.report.warn(&data.name, note);
        }
        Ok(data)
    }

    fn check_join(&self, name: &str, rated: u64, missing: &Tally) -> Result<()> {
        if missing.count < rated || self.records == 0 || rated == 0 {
            return Ok(());
        }
        let mut problem = format!(
            "{name}: none of the {rated} item ids of the interactions (such as {}) occurs in the \
             {} records of metadata (such as {})",
            missing.examples.join(", "),
            self.records,
            self.without.examples.join(", ")
        );
        if self.nearly.count > 0 {
            problem += &format!(
                "; without leading zeros and a `.0` at the end {} would match, such as {}: correct \
                 the ids in one of the files",
                self.nearly.count,
                self.nearly.examples.join(", ")
            );
        } else {
            problem += "; check that both files belong to the same data set";
        }
        Err(Error::NothingJoins(problem))
    }
}

/// Creates an item with a cleaned title and description.
pub(crate) fn described(id: &str, title: &Texts, description: &Texts) -> Item {
    let mut item = Item::new(id);
    let raw_title = title.0.join(" ");
    // Some records have a script of the page as the title.
    if !raw_title.contains("getTime()") {
        item.title = clean(&raw_title);
    }
    item.description = description.joined(" ");
    item
}
