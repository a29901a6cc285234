use std::collections::HashMap;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::columns::{Columns, Grouped};
use crate::ids::IdMap;
use crate::report::{Note, Report};
use crate::{Error, Interactions, Item, Result, Stats, TextConfig};

/// A data set: users, items with their texts, and interactions.
///
/// Users and items have dense ids `0..n`, and the data set keeps the raw ids of the files. A (user,
/// item) pair occurs once. Ratings and times, if the source has them, are in the order of the
/// interactions.
///
/// ```
/// use glta_data::{Dataset, Interaction, Item};
///
/// let interactions = [
///     Interaction::new("ann", "tea"),
///     Interaction::new("bob", "tea"),
///     Interaction::new("bob", "milk"),
/// ];
/// let items = vec![Item::titled("tea", "Green tea, 100 g")];
/// let shop = Dataset::from_interactions("shop", interactions, items)?;
/// assert_eq!((shop.n_users(), shop.n_items()), (2, 2));
/// assert_eq!(shop.items()[0].title, "Green tea, 100 g");
/// assert_eq!(shop.interactions().items(1), [0, 1]);
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(crate) name: String,
    pub(crate) users: Vec<String>,
    pub(crate) items: Vec<Item>,
    pub(crate) interactions: Interactions,
    pub(crate) ratings: Option<Vec<f32>>,
    pub(crate) timestamps: Option<Vec<i64>>,
    pub(crate) report: Report,
}

/// The comparison ignores the reports on the files.
impl PartialEq for Dataset {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.users == other.users
            && self.items == other.items
            && self.interactions == other.interactions
            && self.ratings == other.ratings
            && self.timestamps == other.timestamps
    }
}

/// An interaction of two raw ids, for [`Dataset::from_interactions`]. [`Interactions`] uses dense
/// ids.
///
/// ```
/// use glta_data::{Dataset, Interaction, Item};
///
/// let bought = [
///     Interaction { timestamp: Some(1_700_000_000), ..Interaction::new("ann", "t1") },
///     Interaction { timestamp: Some(1_700_000_060), ..Interaction::new("ben", "t1") },
/// ];
/// let shop = Dataset::from_interactions("shop", bought, vec![Item::titled("t1", "Green tea")])?;
/// assert_eq!((shop.n_users(), shop.n_items()), (2, 1));
/// assert_eq!(shop.timestamps(), Some(&[1_700_000_000, 1_700_000_060][..]));
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction<'a> {
    /// Raw user id.
    pub user: &'a str,
    /// Raw item id.
    pub item: &'a str,
    /// Rating, if there is one.
    pub rating: Option<f32>,
    /// Time in seconds since 1970, if it is known.
    pub timestamp: Option<i64>,
}

impl<'a> Interaction<'a> {
    /// Creates an interaction without rating and time.
    pub fn new(user: &'a str, item: &'a str) -> Self {
        Self { user, item, rating: None, timestamp: None }
    }
}

impl Dataset {
    /// Creates a data set from interactions that a program holds in memory, by raw ids.
    ///
    /// Users and items are numbered in the order of their first interaction. Items of `items`
    /// without interactions follow, and they can be recommended. An item that is missing in `items`
    /// has no text. The rating and time columns exist if every interaction has a value. If a pair
    /// occurs several times, the latest interaction is kept.
    ///
    /// # Errors
    /// Returns [`Error::DuplicateItem`] if two of `items` have the same id, and [`Error::TooMany`]
    /// if a `u32` cannot number all users or items.
    pub fn from_interactions<'a>(
        name: impl Into<String>,
        interactions: impl IntoIterator<Item = Interaction<'a>>,
        items: Vec<Item>,
    ) -> Result<Self> {
        let mut collector = Collector::new(true, true);
        for Interaction { user, item, rating, timestamp } in interactions {
            collector.push(user, item, rating, timestamp)?;
        }
        let mut listed: FxHashMap<u32, Item> = FxHashMap::default();
        for item in items {
            let id = collector.items.intern(&item.raw_id)?;
            if let Some(first) = listed.insert(id, item) {
                return Err(Error::DuplicateItem(first.raw_id));
            }
        }
        collector.finish(name, |id, raw_id| listed.remove(&id).unwrap_or_else(|| Item::new(raw_id)))
    }

    /// Creates a data set from dense ids. `pairs` contains pairs of a user in `0..n_users` and an
    /// index into `items`, in any order. The raw user ids are `"0"`, `"1"`, ….
    ///
    /// # Errors
    /// Returns an error if an id is out of range or two of `items` have the same raw id.
    pub fn from_dense(
        name: impl Into<String>,
        n_users: usize,
        items: Vec<Item>,
        pairs: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self> {
        let interactions = Interactions::from_pairs(n_users, items.len(), pairs)?;
        let mut seen = FxHashSet::default();
        for item in &items {
            if !seen.insert(item.raw_id.as_str()) {
                return Err(Error::DuplicateItem(item.raw_id.clone()));
            }
        }
        Ok(Self {
            name: name.into(),
            users: (0..n_users).map(|u| u.to_string()).collect(),
            items,
            interactions,
            ratings: None,
            timestamps: None,
            report: Report::default(),
        })
    }

    /// Returns the name of the data set, which `metrics.json` contains.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the same data under a different name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Returns the number of users.
    pub fn n_users(&self) -> usize {
        self.users.len()
    }

    /// Returns the number of items.
    pub fn n_items(&self) -> usize {
        self.items.len()
    }

    /// Returns the raw user ids, `(users,)`.
    pub fn users(&self) -> &[String] {
        &self.users
    }

    /// Returns the items, `(items,)`.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the interactions, `(users, items)`.
    pub fn interactions(&self) -> &Interactions {
        &self.interactions
    }

    /// Returns the ratings in the order of [`Interactions::column_indices`], if the source has
    /// them.
    pub fn ratings(&self) -> Option<&[f32]> {
        self.ratings.as_deref()
    }

    /// Returns the times in seconds since 1970, in the order of [`Interactions::column_indices`],
    /// if the source has them.
    pub fn timestamps(&self) -> Option<&[i64]> {
        self.timestamps.as_deref()
    }

    /// Returns the report on rows and values that reading and filtering omitted or merged, or that
    /// were missing.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Checks that there are interactions.
    ///
    /// # Errors
    /// Returns [`Error::Emptied`] with the filter that removed the last interaction, or
    /// [`Error::Empty`] if no filter did.
    pub fn require_interactions(&self) -> Result<()> {
        if !self.interactions.is_empty() {
            return Ok(());
        }
        let by = self.report.filters.iter().find(|filter| filter.after[2] == 0);
        Err(match by {
            Some(filter) => Error::Emptied { dataset: self.name.clone(), rule: filter.emptied() },
            None => Error::Empty(format!("data set `{}`", self.name)),
        })
    }

    /// Returns a map from raw user ids to dense ids.
    pub fn user_ids(&self) -> HashMap<&str, u32> {
        (0..).zip(&self.users).map(|(id, raw)| (raw.as_str(), id)).collect()
    }

    /// Returns a map from raw item ids to dense ids.
    pub fn item_ids(&self) -> HashMap<&str, u32> {
        (0..).zip(&self.items).map(|(id, item)| (item.raw_id.as_str(), id)).collect()
    }

    /// Returns the text of every item, `(items,)`. The text is empty if an item has none of the
    /// fields.
    ///
    /// # Errors
    /// Returns an error if the settings are invalid, or if they name a field that no item of this
    /// data set has.
    pub fn texts(&self, config: &TextConfig) -> Result<Vec<String>> {
        config.validate()?;
        for field in &config.fields {
            if !matches!(field.as_str(), "title" | "genres" | "description")
                && !self.items.iter().any(|item| item.other.contains_key(field))
            {
                let mut names: Vec<&str> = self
                    .items
                    .iter()
                    .flat_map(|item| item.other.keys().map(String::as_str))
                    .collect();
                names.extend(["title", "genres", "description"]);
                names.sort_unstable();
                names.dedup();
                return Err(Error::Config {
                    field: "fields",
                    problem: format!(
                        "no item of `{}` has a field `{field}`; there are {}",
                        self.name,
                        names.join(", ")
                    ),
                });
            }
        }
        Ok(self.items.iter().map(|item| config.text(item)).collect())
    }

    /// Returns the numbers of users, items and interactions, and the density.
    pub fn stats(&self) -> Stats {
        Stats {
            name: self.name.clone(),
            users: self.n_users(),
            items: self.n_items(),
            interactions: self.interactions.len(),
            density: density(self.interactions.len(), self.n_users(), self.n_items()),
        }
    }
}

fn density(interactions: usize, users: usize, items: usize) -> f64 {
    if users == 0 || items == 0 {
        return 0.0;
    }
    interactions as f64 / (users as f64 * items as f64)
}

/// A collection of the interactions in files, by raw id, from which a data set is created.
pub(crate) struct Collector {
    pub(crate) users: IdMap,
    pub(crate) items: IdMap,
    pub(crate) columns: Columns,
    pub(crate) report: Report,
    /// Numbers of rows without a rating and of rows without a time, counted if the column was
    /// requested.
    without: [u64; 2],
}

impl Collector {
    /// Creates an empty collector. It keeps the rating and time columns if they are requested, but
    /// drops a column if a row lacks its value.
    pub(crate) fn new(ratings: bool, timestamps: bool) -> Self {
        Self {
            users: IdMap::new("user"),
            items: IdMap::new("item"),
            columns: Columns {
                ratings: ratings.then(Vec::new),
                timestamps: timestamps.then(Vec::new),
                ..Columns::default()
            },
            report: Report::default(),
            without: [0; 2],
        }
    }

    #[inline]
    pub(crate) fn push(
        &mut self,
        user: &str,
        item: &str,
        rating: Option<f32>,
        timestamp: Option<i64>,
    ) -> Result<()> {
        let (user, item) = (self.users.intern(user)?, self.items.intern(item)?);
        self.push_dense(user, item, rating, timestamp);
        Ok(())
    }

    /// Adds an interaction by dense ids.
    #[inline]
    pub(crate) fn push_dense(
        &mut self,
        user: u32,
        item: u32,
        rating: Option<f32>,
        timestamp: Option<i64>,
    ) {
        let columns = &mut self.columns;
        columns.users.push(user);
        columns.items.push(item);
        match (&mut columns.ratings, rating) {
            (Some(column), Some(rating)) => column.push(rating),
            (ratings, None) => {
                *ratings = None;
                self.without[0] += 1;
            }
            (None, Some(_)) => {}
        }
        match (&mut columns.timestamps, timestamp) {
            (Some(column), Some(timestamp)) => column.push(timestamp),
            (timestamps, None) => {
                *timestamps = None;
                self.without[1] += 1;
            }
            (None, Some(_)) => {}
        }
    }

    #[cfg(feature = "readers")]
    pub(crate) fn is_empty(&self) -> bool {
        self.columns.users.is_empty()
    }

    /// Creates the data set. `item(dense id, raw id)` returns each item.
    pub(crate) fn finish(
        self,
        name: impl Into<String>,
        mut item: impl FnMut(u32, String) -> Item,
    ) -> Result<Dataset> {
        let Self { users, items, columns, mut report, without } = self;
        let (name, rows) = (name.into(), columns.users.len() as u64);
        let Grouped { interactions, ratings, timestamps, repeats } =
            columns.group(users.len(), items.len())?;
        for (ids, of) in [(&users, "user"), (&items, "item")] {
            let count = ids.alike().count() as u64;
            if count > 0 {
                let text = format!(
                    "{of} ids differ from another id only by leading zeros or a `.0` at the end; \
                     each counts as a separate {of}"
                );
                let pair = |(short, raw): (&str, &str)| format!("`{short}` and `{raw}`");
                let note = Note::new("alike_ids", count, Some(ids.len() as u64), &text);
                report.warn(&name, note.examples(ids.alike().map(pair)));
            }
        }
        let users = users.into_raw();
        let items: Vec<Item> = (0..).zip(items.into_raw()).map(|(id, raw)| item(id, raw)).collect();
        if repeats.count > 0 {
            let which = if timestamps.is_some() {
                "the latest of each was kept"
            } else {
                "each counts once"
            };
            let text = format!("rows repeat a pair of user and item; {which}");
            let pair = |(user, item): (u32, u32)| {
                format!("{} {}", users[user as usize], items[item as usize].raw_id)
            };
            let note = Note::new("repeated_pairs", repeats.count, Some(rows), &text);
            report.warn(&name, note.examples(repeats.examples.into_iter().map(pair)));
        }
        for (kind, column, without) in [
            ("rows_without_rating", "rating", without[0]),
            ("rows_without_time", "time", without[1]),
        ] {
            if without > 0 && without < rows {
                let text = format!("rows have no {column}, so no {column} is used");
                report.warn(&name, Note::new(kind, without, Some(rows), &text));
            }
        }
        Ok(Dataset { name, users, items, interactions, ratings, timestamps, report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interactions_are_merged_and_unseen_items_follow() {
        let interaction = |user, item, rating, timestamp| Interaction {
            user,
            item,
            rating: Some(rating),
            timestamp: Some(timestamp),
        };
        let data = Dataset::from_interactions(
            "d",
            [
                interaction("b", "x", 1.0, 10),
                interaction("a", "y", 2.0, 5),
                interaction("b", "x", 3.0, 9),
                interaction("b", "y", 4.0, 8),
            ],
            vec![Item::titled("z", "Z"), Item::titled("x", "X")],
        )
        .unwrap();
        assert_eq!(data.users(), ["b", "a"]);
        let titles: Vec<_> = data.items().iter().map(|i| (&*i.raw_id, &*i.title)).collect();
        assert_eq!(titles, [("x", "X"), ("y", ""), ("z", "Z")]);
        assert_eq!(data.interactions().items(0), [0, 1]);
        assert_eq!(data.ratings(), Some(&[1.0, 4.0, 2.0][..]));
        assert_eq!(data.timestamps(), Some(&[10, 8, 5][..]));
        assert_eq!(data.item_ids()["z"], 2);
        assert_eq!(data.user_ids()["a"], 1);
        assert_eq!(data.stats().density, 0.5);
    }

    #[test]
    fn a_column_with_gaps_is_dropped() {
        let mut half = Interaction::new("a", "x");
        half.rating = Some(1.0);
        let data =
            Dataset::from_interactions("d", [half, Interaction::new("b", "x")], vec![]).unwrap();
        assert_eq!(data.ratings(), None);
        let data =
            Dataset::from_interactions("d", [Interaction::new("b", "x"), half], vec![]).unwrap();
        assert_eq!(data.ratings(), None);
    }

    #[test]
    fn repeated_items_and_unknown_fields_are_errors() {
        let twins = || vec![Item::new("x"), Item::new("x")];
        assert!(Dataset::from_interactions("d", [Interaction::new("a", "x")], twins()).is_err());
        assert!(Dataset::from_dense("d", 1, twins(), [(0, 0)]).is_err());
        let data = Dataset::from_dense("d", 1, vec![Item::new("x")], [(0, 0)]).unwrap();
        let error = data
            .texts(&TextConfig { fields: vec!["tilte".into()], ..TextConfig::default() })
            .unwrap_err();
        assert!(error.to_string().contains("description, genres, title"), "{error}");
    }
}
