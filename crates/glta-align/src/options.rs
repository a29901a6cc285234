use std::collections::BTreeMap;

use crate::data::RunData;
use crate::{Error, Result};

/// The user for whom a list is made.
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
    /// A known user, by dense id, with all known items.
    User(u32),
    /// Any user, by the user's items. Without items the most popular ones are recommended.
    Items(&'a [u32]),
}

/// Options of a list.
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
    /// Items to leave out.
    pub exclude: Vec<u32>,
    /// If given, only these items.
    pub among: Option<Vec<u32>>,
    /// Only items whose field has one of these values; with several fields, all of them must match.
    /// `name` is also the title; `category`, `categories` and `genre` are also the genres.
    pub filter: BTreeMap<String, Vec<String>>,
    /// Also items that the user already has, for products that are bought again.
    pub allow_known: bool,
}

impl ListOptions {
    /// Leaves items out.
    #[must_use]
    pub fn exclude(mut self, items: impl IntoIterator<Item = u32>) -> Self {
        self.exclude.extend(items);
        self
    }

    /// Allows only these items.
    #[must_use]
    pub fn among(mut self, items: impl IntoIterator<Item = u32>) -> Self {
        self.among.get_or_insert_default().extend(items);
        self
    }

    /// Allows only items whose field has this value, or another value that was allowed for the
    /// field.
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

/// The [`ListOptions`] of one user, to check items one by one.
pub(crate) struct Allowed<'a> {
    data: &'a RunData,
    excluded: Vec<u32>,
    among: Option<Vec<u32>>,
    filter: Vec<(&'a str, &'a [String])>,
}

impl<'a> Allowed<'a> {
    /// `has` are the user's items.
    pub(crate) fn new(options: &'a ListOptions, data: &'a RunData, has: &[u32]) -> Result<Self> {
        let items = data.items.len();
        let named = options.exclude.iter().chain(options.among.iter().flatten());
        if let Some(&item) = named.into_iter().find(|&&item| item as usize >= items) {
            return Err(Error::UnknownItem { item, items });
        }
        let known = |field: &str| {
            field == "title" || data.items.iter().any(|item| item.fields.contains_key(field))
        };
        let mut filter: Vec<(&str, &[String])> = Vec::new();
        for (field, values) in &options.filter {
            let also = match field.as_str() {
                "name" => "title",
                "category" | "categories" | "genre" => "genres",
                other => other,
            };
            match [field, also].into_iter().find(|field| known(field)) {
                Some(field) => filter.push((field, values)),
                None => {
                    let names = data.items.iter().flat_map(|item| item.fields.keys());
                    let mut fields: Vec<&str> = names.map(String::as_str).collect();
                    fields.sort_unstable();
                    fields.dedup();
                    let fields = [&["title"], &fields[..]].concat().join(", ");
                    return Err(Error::UnknownField { field: field.clone(), fields });
                }
            }
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
        Ok(Self { data, excluded, among, filter })
    }

    /// Whether an item is left out of the list.
    pub(crate) fn skips(&self, item: u32) -> bool {
        let field = |&(field, values): &(&str, &[String])| {
            let item = &self.data.items[item as usize];
            let has = item.fields.get(field).is_some_and(|v| v.iter().any(|v| values.contains(v)));
            has || (field == "title" && values.contains(&item.title))
        };
        self.excluded.binary_search(&item).is_ok()
            || self.among.as_ref().is_some_and(|among| among.binary_search(&item).is_err())
            || !self.filter.iter().all(field)
    }

    /// All items that are left out of the list.
    pub(crate) fn skipped(&self) -> Vec<u32> {
        if self.among.is_none() && self.filter.is_empty() {
            return self.excluded.clone();
        }
        (0..self.data.items.len() as u32).filter(|&item| self.skips(item)).collect()
    }
}
