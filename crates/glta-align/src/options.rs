use std::collections::BTreeMap;

use crate::{Error, Result};

/// A user for whom a list is made: a known user, or any user, described by items.
///
/// ```
/// use glta_align::Person;
///
/// let known = Person::User(7);
/// let anybody = Person::Items(&[3, 5]);
/// assert_ne!(known, anybody);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person<'a> {
    /// A known user, by dense id, with all known items of the user.
    User(u32),
    /// Any user, by dense ids of the user's items. For an empty list, the most popular items are
    /// recommended.
    Items(&'a [u32]),
}

/// Options for the items of a list.
///
/// ```
/// use glta_align::ListOptions;
///
/// let hot = ListOptions::default().filter("category", "Tea").filter("category", "Coffee");
/// let options = hot.exclude([3, 5]);
/// assert_eq!(options.filter["category"], ["Tea", "Coffee"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Items that must not be in the list, by dense id.
    pub exclude: Vec<u32>,
    /// The only items that may be in the list, by dense id. `None` allows all items.
    pub among: Option<Vec<u32>>,
    /// Values that the items must have, by field. One value of a field is enough, but all fields
    /// must match. `name` also selects the title, and `category`, `categories` and `genre` select
    /// the genres.
    pub filter: BTreeMap<String, Vec<String>>,
    /// Whether the list may contain items that the user already has, for products that are bought
    /// again.
    pub allow_known: bool,
}

impl ListOptions {
    /// Excludes items from the list.
    #[must_use]
    pub fn exclude(mut self, items: impl IntoIterator<Item = u32>) -> Self {
        self.exclude.extend(items);
        self
    }

    /// Restricts the list to the given items. Repeated calls allow the union of their items.
    #[must_use]
    pub fn among(mut self, items: impl IntoIterator<Item = u32>) -> Self {
        self.among.get_or_insert_default().extend(items);
        self
    }

    /// Restricts the list to items whose field has the given value. Several values of one field are
    /// alternatives.
    #[must_use]
    pub fn filter(mut self, field: impl Into<String>, value: impl Into<String>) -> Self {
        self.filter.entry(field.into()).or_default().push(value.into());
        self
    }

    /// Allows items that the user already has.
    #[must_use]
    pub fn allow_known(mut self) -> Self {
        self.allow_known = true;
        self
    }
}

/// The [`ListOptions`] of one user, prepared to check items one by one.
pub(crate) struct Allowed<'a> {
    items: usize,
    excluded: Vec<u32>,
    among: Option<Vec<u32>>,
    /// Whether the filter allows each item, `(items,)`. `None` allows all items.
    filter: Option<&'a [bool]>,
}

impl<'a> Allowed<'a> {
    /// Prepares the options for a user with the items `has` and a catalogue of `items` items.
    pub(crate) fn new(
        options: &ListOptions,
        items: usize,
        filter: Option<&'a [bool]>,
        has: &[u32],
    ) -> Result<Self> {
        let named = options.exclude.iter().chain(options.among.iter().flatten());
        if let Some(&item) = named.into_iter().find(|&&item| item as usize >= items) {
            return Err(Error::UnknownItem { item, items });
        }
        let mut excluded = options.exclude.clone();
        if !options.allow_known {
            excluded.extend(has);
        }
        excluded.sort_unstable();
        excluded.dedup();
        let mut among = options.among.clone();
        if let Some(among) = &mut among {
            among.sort_unstable();
        }
        Ok(Self { items, excluded, among, filter })
    }

    /// Returns whether the options exclude an item from the list.
    pub(crate) fn skips(&self, item: u32) -> bool {
        self.filter.is_some_and(|allowed| !allowed[item as usize])
            || self.excluded.binary_search(&item).is_ok()
            || self.among.as_ref().is_some_and(|among| among.binary_search(&item).is_err())
    }

    /// Returns all items that the options exclude from the list, in ascending order.
    pub(crate) fn skipped(&self) -> Vec<u32> {
        if self.among.is_none() && self.filter.is_none() {
            return self.excluded.clone();
        }
        (0..self.items as u32).filter(|&item| self.skips(item)).collect()
    }
}
