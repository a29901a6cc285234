use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is known about an item: its id in the raw files and its texts.
///
/// Text that the raw files lack is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The id the raw files use.
    pub raw_id: String,
    /// Title.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Genres or categories, most general first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres: Vec<String>,
    /// Free text that describes the item.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Further texts by name, such as `brand` or `features`.
    #[serde(flatten)]
    pub other: BTreeMap<String, String>,
}

impl Item {
    /// An item of which only the id is known.
    pub fn new(raw_id: impl Into<String>) -> Self {
        Self { raw_id: raw_id.into(), ..Self::default() }
    }

    /// An item with a title.
    pub fn titled(raw_id: impl Into<String>, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::new(raw_id) }
    }

    /// Whether there is no text at all.
    pub fn is_textless(&self) -> bool {
        self.title.is_empty()
            && self.genres.is_empty()
            && self.description.is_empty()
            && self.other.values().all(String::is_empty)
    }
}
