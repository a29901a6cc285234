use std::path::Path;

use serde::{Deserialize, Serialize};

use super::input::{Input, open_file};
use super::lines::{Fault, decimal, expected, for_each_line, integer, utf8};
use crate::dataset::Collector;
use crate::{Dataset, Error, Interactions, Item, Result, Split};

/// What a line of a plain interaction file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PairsLayout {
    /// `user item`, perhaps with further columns.
    Pairs,
    /// `user item item …`, LightGCN's format. A user alone has no items.
    Lists,
}

/// How a plain interaction file is read.
///
/// The separator is that of the first line: `::`, a tab, a comma, a semicolon or
/// blanks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairsConfig {
    /// What a line holds. Default [`PairsLayout::Pairs`].
    pub layout: PairsLayout,
    /// Whether the first line names the columns and is skipped. Default false.
    pub header: bool,
    /// Whether the third column is a rating. Default false.
    pub rating: bool,
    /// Whether the column after the ids (and the rating) is a time in seconds.
    /// Default false.
    pub timestamp: bool,
}

impl Default for PairsConfig {
    fn default() -> Self {
        Self { layout: PairsLayout::Pairs, header: false, rating: false, timestamp: false }
    }
}

impl PairsConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for ratings or times in lists, which cannot hold them.
    pub fn validate(&self) -> Result<()> {
        if self.layout == PairsLayout::Lists && (self.rating || self.timestamp) {
            return Err(Error::Config {
                field: "layout",
                problem: "lists of items hold no ratings and no times".into(),
            });
        }
        Ok(())
    }

    fn form(&self) -> String {
        if self.layout == PairsLayout::Lists {
            return "`user item item …`".into();
        }
        let mut form = String::from("`user item");
        if self.rating {
            form += " rating";
        }
        if self.timestamp {
            form += " time";
        }
        form + "`"
    }
}

/// Reads interactions without texts from one file, plain or gzipped.
///
/// Columns past those asked for are ignored. Raw ids may be any text; users and
/// items are numbered in the order of their first appearance. The data set has
/// the file's name up to the first dot.
///
/// # Errors
/// An unreadable file, an empty one, or the first line that lacks a column, has
/// another separator or a rating or time that is no number.
pub fn pairs(path: impl AsRef<Path>, config: &PairsConfig) -> Result<Dataset> {
    config.validate()?;
    let path = path.as_ref();
    let mut collector = Collector::new(config.rating, config.timestamp);
    read(open_file(path)?, config, &mut collector)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    collector.finish(name, |_, raw| Item::new(raw))
}

/// Reads a split that was published as two files over the same ids.
///
/// The data set holds the interactions of both; the validation part is empty
/// (see [`Split::with_validation`]). A pair that is in both files counts as
/// training only.
///
/// # Errors
/// As [`pairs`].
pub fn split_pairs(
    name: impl Into<String>,
    train: impl AsRef<Path>,
    test: impl AsRef<Path>,
    config: &PairsConfig,
) -> Result<(Dataset, Split)> {
    config.validate()?;
    let mut collector = Collector::new(config.rating, config.timestamp);
    read(open_file(train.as_ref())?, config, &mut collector)?;
    let n_train = collector.columns.users.len();
    read(open_file(test.as_ref())?, config, &mut collector)?;
    finish_split(name, collector, n_train)
}

/// A data set and its split, the first `n_train` rows being for training.
pub(crate) fn finish_split(
    name: impl Into<String>,
    collector: Collector,
    n_train: usize,
) -> Result<(Dataset, Split)> {
    let name = name.into();
    let (n_users, n_items) = (collector.users.len(), collector.items.len());
    let (users, items) = (&collector.columns.users, &collector.columns.items);
    let matrix =
        |users: &[u32], items: &[u32]| Interactions::from_columns(n_users, n_items, users, items);
    let train = matrix(&users[..n_train], &items[..n_train])?;
    let whole_test = matrix(&users[n_train..], &items[n_train..])?;
    let test = whole_test.filter(|user, item| !train.contains(user, item));
    if test.len() < whole_test.len() {
        tracing::warn!(
            dataset = name,
            pairs = whole_test.len() - test.len(),
            "test pairs that are also training pairs were left out of the test"
        );
    }
    let valid = Interactions::empty(n_users, n_items)?;
    let split = Split { train, valid, test, cold_items: Vec::new() };
    Ok((collector.finish(name, |_, raw| Item::new(raw))?, split))
}

/// Appends a file's rows.
pub(crate) fn read(
    input: Input<'_>,
    config: &PairsConfig,
    collector: &mut Collector,
) -> Result<()> {
    let file = input.file.clone();
    let form = config.form();
    let before = collector.columns.users.len();
    let mut separator = None;
    for_each_line(input, |number, line| {
        let separator = *separator.get_or_insert_with(|| Separator::of(line));
        if number == 1 && config.header {
            return Ok(());
        }
        let text = utf8(line)?;
        let bad = || expected(&format!("{form} separated by {}", separator.name()), line);
        let mut fields = separator.split(text);
        let user = fields.next().ok_or_else(bad)?;
        let user_id = collector.users.intern(user)?;
        match config.layout {
            PairsLayout::Lists => {
                for item in fields {
                    let item = collector.items.intern(item)?;
                    collector.push_dense(user_id, item, None, None);
                }
            }
            PairsLayout::Pairs => {
                let item = fields.next().ok_or_else(bad)?;
                let item = collector.items.intern(item)?;
                let mut column = |wanted: bool| match (wanted, wanted.then(|| fields.next())) {
                    (true, Some(Some(field))) => Ok(Some(field.as_bytes())),
                    (true, _) => Err(bad()),
                    (false, _) => Ok(None),
                };
                let rating = match column(config.rating)? {
                    Some(field) => Some(decimal(field).ok_or_else(bad)?),
                    None => None,
                };
                let time = match column(config.timestamp)? {
                    Some(field) => Some(integer(field).ok_or_else(bad)?),
                    None => None,
                };
                collector.push_dense(user_id, item, rating, time);
            }
        }
        Ok::<(), Fault>(())
    })?;
    if collector.columns.users.len() == before {
        return Err(Error::Empty(file));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Separator {
    DoubleColon,
    Byte(char),
    Blanks,
}

impl Separator {
    /// That of a file's first line.
    fn of(line: &[u8]) -> Self {
        if line.windows(2).any(|w| w == b"::") {
            return Self::DoubleColon;
        }
        ['\t', ',', ';']
            .into_iter()
            .find(|&c| line.contains(&(c as u8)))
            .map_or(Self::Blanks, Self::Byte)
    }

    fn name(self) -> &'static str {
        match self {
            Self::DoubleColon => "`::`",
            Self::Byte('\t') => "tabs",
            Self::Byte(',') => "commas",
            Self::Byte(_) => "semicolons",
            Self::Blanks => "blanks",
        }
    }

    /// The fields that are not empty, without blanks around them.
    fn split(self, line: &str) -> impl Iterator<Item = &str> {
        let mut rest = Some(line);
        std::iter::from_fn(move || {
            loop {
                let text = rest?;
                let cut = match self {
                    Self::DoubleColon => text.split_once("::"),
                    Self::Byte(c) => text.split_once(c),
                    Self::Blanks => text.split_once(char::is_whitespace),
                };
                let (field, left) = cut.map_or((text, None), |(field, left)| (field, Some(left)));
                rest = left;
                let field = field.trim();
                if !field.is_empty() {
                    return Some(field);
                }
            }
        })
    }
}
