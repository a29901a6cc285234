//! The data of a run and of a recommender: items, users and interactions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use glta_data::{Dataset, Interactions, Item, Split, TextConfig};
use serde::{Deserialize, Serialize};

use crate::files::{ITEM_TEXT, ITEMS, USERS, read_text, write_whole};
use crate::{Error, Result};

/// An item of the catalogue. The dense id of the item is its position in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Raw id of the item.
    pub raw_id: String,
    /// Title of the item.
    pub title: String,
    /// Text of the item for prompts and encoders.
    pub text: String,
    /// Other fields of the item, such as a category or a brand, each with its values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Vec<String>>,
}

impl ItemRecord {
    /// Creates the record of an item with the text `text`.
    pub fn new(item: &Item, text: String) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> =
            item.other.iter().map(|(name, value)| (name.clone(), vec![value.clone()])).collect();
        if !item.genres.is_empty() {
            fields.insert("genres".into(), item.genres.clone());
        }
        let (raw_id, title) = (item.raw_id.clone(), item.title.clone());
        Self { raw_id, title, text, fields }
    }

    /// Creates a record with only a raw id.
    pub fn bare(raw_id: impl Into<String>) -> Self {
        let (title, text) = (String::new(), String::new());
        Self { raw_id: raw_id.into(), title, text, fields: BTreeMap::new() }
    }
}

/// The training data of a run, by dense user and item ids. Runs and recommenders share the data,
/// and also accept them in an [`Arc`].
///
/// ```
/// use glta_align::RunData;
/// use glta_data::{Dataset, ShopConfig, Split, SplitConfig, TextConfig};
///
/// let shop = Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() })?;
/// let split = Split::new(&shop, &SplitConfig::default())?;
/// let data = RunData::new(&shop, &split, &TextConfig::default())?;
/// assert_eq!((data.users.len(), data.items.len()), (40, 50));
/// assert!(!data.items[0].text.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RunData {
    /// Raw user ids, `(users,)`.
    pub users: Vec<String>,
    /// Catalogue of all items, `(items,)`.
    pub items: Vec<ItemRecord>,
    /// Interactions on which the model is fitted, `(users, items)`.
    pub train: Arc<Interactions>,
    /// Interactions on which epochs and settings are chosen, `(users, items)`. The matrix may be
    /// empty.
    pub valid: Interactions,
    /// Settings for the text of an item, which also apply to new items of a growing recommender.
    pub texts: TextConfig,
}

#[derive(Serialize)]
struct ItemRef<'a> {
    id: u32,
    #[serde(flatten)]
    item: &'a ItemRecord,
}

#[derive(Deserialize)]
struct ItemLine {
    id: u32,
    #[serde(flatten)]
    item: ItemRecord,
}

#[derive(Serialize)]
struct UserRef<'a> {
    id: u32,
    raw_id: &'a str,
    train: &'a [u32],
    valid: &'a [u32],
}

#[derive(Deserialize)]
struct UserLine {
    id: u32,
    raw_id: String,
    train: Vec<u32>,
    valid: Vec<u32>,
}

impl RunData {
    /// Creates run data from the training and validation part of a split, with item texts that are
    /// composed as `texts` defines. The test part is not included.
    ///
    /// # Errors
    /// Returns an error if the data set lacks one of the text fields, or if
    /// [`validate`](Self::validate) fails.
    pub fn new(dataset: &Dataset, split: &Split, texts: &TextConfig) -> Result<Self> {
        let items = dataset
            .items()
            .iter()
            .zip(dataset.texts(texts)?)
            .map(|(item, text)| ItemRecord::new(item, text))
            .collect();
        let data = Self {
            users: dataset.users().to_vec(),
            items,
            train: Arc::new(split.train.clone()),
            valid: split.valid.clone(),
            texts: texts.clone(),
        };
        data.validate()?;
        Ok(data)
    }

    /// Checks that all parts have the same users and items, that there are training interactions,
    /// and that training and validation do not overlap.
    ///
    /// # Errors
    /// Returns [`Error::Data`] with the problem.
    pub fn validate(&self) -> Result<()> {
        for (part, interactions) in [("training", &*self.train), ("validation", &self.valid)] {
            let (users, items) = (interactions.n_users(), interactions.n_items());
            if users != self.users.len() || items != self.items.len() {
                return Err(Error::Data(format!(
                    "the {part} part has {users} users and {items} items, but there are {} user \
                     ids and {} items",
                    self.users.len(),
                    self.items.len()
                )));
            }
        }
        if self.train.is_empty() {
            return Err(Error::Data("there are no training interactions".into()));
        }
        if let Some((user, item)) = self.valid.iter().find(|&(u, i)| self.train.contains(u, i)) {
            return Err(Error::Data(format!(
                "user {user} has item {item} in the training and in the validation part"
            )));
        }
        Ok(())
    }

    /// Returns all known items of `user`, in ascending order. They are not recommended again.
    pub(crate) fn seen(&self, user: u32) -> Vec<u32> {
        let mut seen = [self.train.items(user), self.valid.items(user)].concat();
        seen.sort_unstable();
        seen
    }

    /// Returns the record of an item, with its text.
    pub fn record(&self, item: &Item) -> ItemRecord {
        ItemRecord::new(item, self.texts.text(item))
    }

    /// Saves the data to the folder of a run.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(ITEM_TEXT);
        let texts = toml::to_string(&self.texts).map_err(|e| Error::file(&path, e))?;
        write_whole(&path, texts.as_bytes())?;
        let lines = self.items.iter().zip(0..).map(|(item, id)| ItemRef { id, item });
        write_lines(&folder.join(ITEMS), lines)?;
        let lines = self.users.iter().zip(0..).map(|(raw_id, id)| UserRef {
            id,
            raw_id,
            train: self.train.items(id),
            valid: self.valid.items(id),
        });
        write_lines(&folder.join(USERS), lines)
    }

    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(ITEM_TEXT);
        let texts = toml::from_str(&read_text(&path)?).map_err(|e| Error::file(&path, e))?;
        let (items, users) = (&folder.join(ITEMS), &folder.join(USERS));
        let item_lines: Vec<ItemLine> = read_lines(items)?;
        let user_lines: Vec<UserLine> = read_lines(users)?;
        check_ids(items, item_lines.iter().map(|l| l.id))?;
        check_ids(users, user_lines.iter().map(|l| l.id))?;
        let (n_users, n_items) = (user_lines.len(), item_lines.len());
        let matrix = |part: fn(&UserLine) -> &[u32]| {
            let pairs = user_lines.iter().flat_map(|l| part(l).iter().map(|&i| (l.id, i)));
            Interactions::from_pairs(n_users, n_items, pairs).map_err(|e| Error::file(users, e))
        };
        let data = Self {
            train: Arc::new(matrix(|l| &l.train)?),
            valid: matrix(|l| &l.valid)?,
            items: item_lines.into_iter().map(|l| l.item).collect(),
            users: user_lines.into_iter().map(|l| l.raw_id).collect(),
            texts,
        };
        data.validate()?;
        Ok(data)
    }
}

fn write_lines<T: Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, &line).map_err(|e| Error::file(path, e))?;
        bytes.push(b'\n');
    }
    write_whole(path, &bytes)
}

fn read_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<T>> {
    let text = read_text(path)?;
    text.lines()
        .enumerate()
        .map(|(n, line)| {
            serde_json::from_str(line)
                .map_err(|e| Error::file(path, format!("line {}: {e}", n + 1)))
        })
        .collect()
}

fn check_ids(path: &Path, ids: impl Iterator<Item = u32>) -> Result<()> {
    for (line, (id, expected)) in ids.zip(0u32..).enumerate() {
        if id != expected {
            let line = line + 1;
            return Err(Error::file(path, format!("line {line}: id {id}, expected {expected}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> RunData {
        let item = |n: u32| ItemRecord {
            raw_id: format!("i{n}"),
            title: format!("Item \"{n}\""),
            text: "line\nbreak".into(),
            fields: BTreeMap::from([("category".into(), vec![format!("c{n}")])]),
        };
        RunData {
            users: vec!["ann".into(), "ben".into()],
            items: (0..3).map(item).collect(),
            train: Arc::new(Interactions::from_pairs(2, 3, [(0, 1), (1, 2)]).unwrap()),
            valid: Interactions::from_pairs(2, 3, [(0, 0)]).unwrap(),
            texts: TextConfig { separator: " | ".into(), ..TextConfig::default() },
        }
    }

    #[test]
    fn round_trip_through_files() {
        let folder = tempfile::tempdir().unwrap();
        let (items, users) = (folder.path().join(ITEMS), folder.path().join(USERS));
        data().save(folder.path()).unwrap();
        assert_eq!(RunData::load(folder.path()).unwrap(), data());
        assert_eq!(data().seen(0), [0, 1]);

        let text = std::fs::read_to_string(&users).unwrap().replace("[2]", "[7]");
        std::fs::write(&users, text).unwrap();
        let message = RunData::load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("users"), "{message}");
        std::fs::write(&items, "{\"id\":0}\n").unwrap();
        let message = RunData::load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("items") && message.contains("line 1"), "{message}");
    }

    #[test]
    fn parts_must_have_the_same_size() {
        let mut bad = data();
        bad.valid = Interactions::from_pairs(2, 3, [(0, 1)]).unwrap();
        assert!(bad.validate().unwrap_err().to_string().contains("user 0 has item 1"));
        bad.valid = Interactions::from_pairs(1, 3, []).unwrap();
        assert!(bad.validate().unwrap_err().to_string().contains("validation part has 1 users"));
    }
}
