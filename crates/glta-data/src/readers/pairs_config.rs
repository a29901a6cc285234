//! How files of interactions are read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::table::{Column, TableConfig};
use crate::{Error, Result};

/// What a row of an interaction file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PairsLayout {
    /// A user and an item, perhaps with further columns.
    Pairs,
    /// `user item item …`, LightGCN's format. A user alone has no items.
    Lists,
}

/// What happens to a row without a user or an item: an id that is empty, `nan`, `NaT`, `None`,
/// `null` or `undefined` in any case, `NA`, `N/A`, `<NA>` or `\N`. None is ever taken for a
/// person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingIds {
    /// The file is refused, with the line.
    #[default]
    Refuse,
    /// The row is left out and counted.
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

/// How a file of interactions is read. What is `None` is recognised from the content.
///
/// Columns go by what a header calls them (`user_id`, `customer`, `asin`, `timestamp`, …), else
/// users are in the first and items in the second column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairsConfig {
    /// What a row holds.
    pub layout: Option<PairsLayout>,
    /// Header, separator and quoting.
    pub table: TableConfig,
    /// The column of users.
    pub user: Option<Column>,
    /// The column of items.
    pub item: Option<Column>,
    /// The column of ratings: numbers, perhaps with a decimal comma. There need not be one; where
    /// it is named here, no row may lack its value.
    pub rating: Option<Column>,
    /// The column of times: seconds, milliseconds, microseconds or nanoseconds since 1970, or ISO
    /// 8601 dates. There need not be one; where it is named here, no row may lack its value.
    pub time: Option<Column>,
    /// What happens to a row without a user or an item.
    pub missing_ids: MissingIds,
}

impl PairsConfig {
    /// One that takes rows for `layout`.
    pub fn of(layout: PairsLayout) -> Self {
        Self { layout: Some(layout), ..Self::default() }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for named columns or a header in lists, which have none.
    pub fn validate(&self) -> Result<()> {
        let named = [&self.user, &self.item, &self.rating, &self.time];
        let header = self.table.header == Some(true);
        if self.layout == Some(PairsLayout::Lists) && (header || named.iter().any(|c| c.is_some()))
        {
            return Err(Error::Config {
                field: "layout",
                problem: "lists of items have no columns of other kinds and no header".into(),
            });
        }
        Ok(())
    }
}
