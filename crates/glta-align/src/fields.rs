//! Indexes items by the values of their fields.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use crate::data::ItemRecord;
use crate::{Error, Result};

/// Maps each value of a field to the ids of the items with this value, in ascending order.
type Values = FxHashMap<String, Vec<u32>>;

/// An index of each field that a filter has used, which is created on first use.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    indexed: RwLock<FxHashMap<String, Arc<Values>>>,
    /// Names of all fields, including `title`.
    names: OnceLock<BTreeSet<String>>,
}

impl Fields {
    /// Returns for each item whether it has one of the wanted values in every field of the filter.
    /// Returns `None` for a filter without fields.
    pub(crate) fn allowed(
        &self,
        filter: &BTreeMap<String, Vec<String>>,
        items: &[ItemRecord],
    ) -> Result<Option<Vec<bool>>> {
        let mut allowed: Option<Vec<bool>> = None;
        for (field, values) in filter {
            let indexed = self.indexed(self.name_of(field, items)?, items);
            let mut has = vec![false; items.len()];
            for &item in values.iter().filter_map(|value| indexed.get(value)).flatten() {
                has[item as usize] = true;
            }
            match &mut allowed {
                Some(allowed) => allowed.iter_mut().zip(has).for_each(|(all, has)| *all &= has),
                None => allowed = Some(has),
            }
        }
        Ok(allowed)
    }

    fn indexed(&self, field: &str, items: &[ItemRecord]) -> Arc<Values> {
        let known = self.indexed.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(values) = known.get(field) {
            return Arc::clone(values);
        }
        drop(known);
        let mut values = Values::default();
        for (item, id) in items.iter().zip(0..) {
            let title = (field == "title").then_some(&item.title);
            for value in item.fields.get(field).into_iter().flatten().chain(title) {
                let with = values.entry(value.clone()).or_default();
                // An item may have a value twice.
                if with.last() != Some(&id) {
                    with.push(id);
                }
            }
        }
        let values = Arc::new(values);
        let mut known = self.indexed.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(field.to_owned(), Arc::clone(&values));
        values
    }

    /// Returns the existing field to which a name in a filter refers. For example, `category` also
    /// refers to `genres`.
    fn name_of<'a>(&self, field: &'a str, items: &[ItemRecord]) -> Result<&'a str> {
        let also = match field {
            "name" => "title",
            "category" | "categories" | "genre" => "genres",
            other => other,
        };
        let names = self.names.get_or_init(|| {
            let fields = items.iter().flat_map(|item| item.fields.keys().cloned());
            fields.chain(["title".to_owned()]).collect()
        });
        [field, also].into_iter().find(|&field| names.contains(field)).ok_or_else(|| {
            let fields: Vec<&str> = names.iter().map(String::as_str).collect();
            Error::UnknownField { field: field.to_owned(), fields: fields.join(", ") }
        })
    }
}
