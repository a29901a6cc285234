//! How files of interactions are read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::table::{Column, TableConfig};
use crate::{Error, Result};

/// The content of a row in a file of interactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PairsLayout {
    /// A user and an item, and optional further columns.
    Pairs,
    /// `user item item …`, LightGCN's format. A row with only a user is a user without items.
    Lists,
}

/// How a row without a user or an item is handled. An id is missing if it is empty, `nan`, `NaT`,
/// `None`, `null` or `undefined` in any case, `NA`, `N/A`, `<NA>` or `\N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingIds {
    /// The file is rejected, with the line.
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

/// How a file of interactions is read. Fields that are `None` are recognised from the content.
///
/// Columns are recognised by their names in the header (`user_id`, `customer`, `asin`, `timestamp`,
/// …). Without known names the first column has users and the second items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairsConfig {
    /// The content of a row.
    pub layout: Option<PairsLayout>,
    /// Header, separator and quoting.
    pub table: TableConfig,
    /// The column of users.
    pub user: Option<Column>,
    /// The column of items.
    pub item: Option<Column>,
    /// The column of ratings, optional: numbers, also with a decimal comma. If it is set, every row
    /// must have a value.
    pub rating: Option<Column>,
    /// The column of times, optional: seconds, milliseconds, microseconds or nanoseconds since
    /// 1970, or ISO 8601 dates. If it is set, every row must have a value.
    pub time: Option<Column>,
    /// How a row without a user or an item is handled.
    pub missing_ids: MissingIds,
}

impl PairsConfig {
    /// The default settings for a `layout`.
    pub fn of(layout: PairsLayout) -> Self {
        Self { layout: Some(layout), ..Self::default() }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for named columns or a header together with lists, which have none.
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
