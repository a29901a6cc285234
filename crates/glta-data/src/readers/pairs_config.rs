//! Settings for reading files of interactions.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::table::{Column, TableConfig};
use crate::{Error, Result};

/// Layout of the rows in a file of interactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PairsLayout {
    /// One interaction per row: a user and an item, and optional further columns.
    Pairs,
    /// One user per row, `user item item …` (LightGCN's format). A row with only a user represents
    /// a user without items.
    Lists,
}

/// Treatment of rows without a user or an item. An id is missing if it is empty, `nan`, `NaT`,
/// `None`, `null` or `undefined` in any case, `NA`, `N/A`, `<NA>` or `\N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingIds {
    /// The reader returns an error that names the line. This is the default.
    #[default]
    Refuse,
    /// The reader omits the row and counts it in the report.
    Drop,
}

impl FromStr for MissingIds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "drop" => Ok(Self::Drop),
            _ => {
                let problem = format!("`{text}` is neither `refuse` nor `drop`");
                Err(Error::Config { field: "missing_ids", problem })
            }
        }
    }
}

/// Settings for reading a file of interactions. If a field is `None`, the reader recognises its
/// value from the content of the file.
///
/// Columns are recognised by their names in the header (`user_id`, `customer`, `asin`, `timestamp`,
/// …). If no name is known, the first column contains the users and the second the items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairsConfig {
    /// Layout of the rows.
    pub layout: Option<PairsLayout>,
    /// Header, separator and quoting of the table.
    pub table: TableConfig,
    /// Column of the users.
    pub user: Option<Column>,
    /// Column of the items.
    pub item: Option<Column>,
    /// Column of the ratings, which may have a decimal comma. With `None`, a file may lack the
    /// column. If a column is set, the file must have it, and a row without a rating is an error.
    pub rating: Option<Column>,
    /// Column of the times: seconds, milliseconds, microseconds or nanoseconds since 1970, or ISO
    /// 8601 dates. With `None`, a file may lack the column. If a column is set, the file must have
    /// it, and a row without a time is an error.
    pub time: Option<Column>,
    /// Treatment of rows without a user or an item. Default [`MissingIds::Refuse`].
    pub missing_ids: MissingIds,
}

impl PairsConfig {
    /// Returns the default settings for a `layout`.
    pub fn of(layout: PairsLayout) -> Self {
        Self { layout: Some(layout), ..Self::default() }
    }

    /// Checks that the settings do not contradict each other.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the layout is [`PairsLayout::Lists`] and a column or a header
    /// is set, because lists have neither columns nor a header.
    pub fn validate(&self) -> Result<()> {
        let named = [&self.user, &self.item, &self.rating, &self.time];
        let header = self.table.header == Some(true);
        if self.layout == Some(PairsLayout::Lists) && (header || named.iter().any(|c| c.is_some()))
        {
            return Err(Error::Config {
                field: "layout",
                problem: "lists of items have no header and no other columns".into(),
            });
        }
        Ok(())
    }
}
