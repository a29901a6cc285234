use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An item: its raw id and its texts. A text that the files lack is empty.
///
/// ```
/// use glta_data::Item;
///
/// let item = Item { genres: vec!["Tea".into()], ..Item::titled("sku-1", "Green tea, 100 g") };
/// assert!(!item.is_textless());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Id of the item in the raw files.
    pub raw_id: String,
    /// Title of the item.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Genres or categories, from general to specific.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres: Vec<String>,
    /// Description in free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Other texts by name, such as `brand` or `features`.
    #[serde(flatten)]
    pub other: BTreeMap<String, String>,
}

impl Item {
    /// Creates an item without texts.
    pub fn new(raw_id: impl Into<String>) -> Self {
        Self { raw_id: raw_id.into(), ..Self::default() }
    }

    /// Creates an item with a title.
    pub fn titled(raw_id: impl Into<String>, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::new(raw_id) }
    }

    /// Returns whether the item has no text.
    pub fn is_textless(&self) -> bool {
        self.title.is_empty()
            && self.genres.is_empty()
            && self.description.is_empty()
            && self.other.values().all(String::is_empty)
    }
}
