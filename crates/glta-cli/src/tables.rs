//! Flags for tables of interactions.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use glta_data::readers::{Column, MissingIds, PairsConfig, PairsLayout, Separator, TableConfig};

use crate::Result;

/// Flags for the format of a table of interactions. Without a flag, the reader recognises the value
/// from the content.
#[derive(Debug, Clone, Default, Args)]
pub struct TableFlags {
    /// Content of a row: lists (`user item item …`) or pairs (user, item, and optional further
    /// columns); by default recognised from the content.
    #[arg(long, value_enum, help_heading = "Tables")]
    pub layout: Option<Layout>,
    /// Whether the first row contains the names of the columns; by default recognised from the
    /// content.
    #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no, help_heading = "Tables")]
    pub header: Option<bool>,
    /// Separator between fields: tab, comma, semicolon, bar, space, blanks (any sequence of spaces
    /// and tabs), :: or one character; by default recognised from the content.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Separator>, help_heading = "Tables")]
    pub separator: Option<Separator>,
    /// Whether " around a field is a quote and not a part of the text; by default recognised from
    /// the content.
    #[arg(long, value_name = "YES_OR_NO", value_parser = yes_or_no, help_heading = "Tables")]
    pub quotes: Option<bool>,
    /// Columns by name or number from 1, such as user=customer_id,item=3,rating=stars,time=date.
    #[arg(
        long,
        value_name = "WHAT=COLUMN",
        value_delimiter = ',',
        value_parser = column,
        help_heading = "Tables"
    )]
    pub columns: Vec<(ColumnKind, Column)>,
    /// Treatment of a row whose user or item is empty, nan, None, null or similar: refuse (the
    /// file) or drop (the row).
    #[arg(
        long,
        value_name = "RULE",
        default_value = "refuse",
        value_parser = parsed::<MissingIds>,
        help_heading = "Tables"
    )]
    pub missing_ids: MissingIds,
}

/// Content of the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// One row per user, with all items of the user.
    Lists,
    /// One row per interaction.
    Pairs,
}

/// Content of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Column of user ids.
    User,
    /// Column of item ids.
    Item,
    /// Column of ratings.
    Rating,
    /// Column of times.
    Time,
}

fn yes_or_no(text: &str) -> std::result::Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("yes or no is expected".into()),
    }
}

fn parsed<T: FromStr<Err = glta_data::Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|e: glta_data::Error| e.to_string())
}

fn column(text: &str) -> std::result::Result<(ColumnKind, Column), String> {
    let form = "expected user, item, rating or time, `=`, and a column's name or number";
    let (what, column) = text.split_once('=').ok_or(form)?;
    let what = match what {
        "user" => ColumnKind::User,
        "item" => ColumnKind::Item,
        "rating" => ColumnKind::Rating,
        "time" | "timestamp" => ColumnKind::Time,
        _ => return Err(form.into()),
    };
    let Ok(column) = column.parse();
    Ok((what, column))
}

impl TableFlags {
    /// Returns the settings of the reader.
    ///
    /// # Errors
    /// Returns an error if the flags contradict each other.
    pub fn config(&self) -> Result<PairsConfig> {
        let named = |wanted: ColumnKind| {
            self.columns.iter().rfind(|(what, _)| *what == wanted).map(|(_, column)| column.clone())
        };
        let config = PairsConfig {
            layout: self.layout.map(|layout| match layout {
                Layout::Lists => PairsLayout::Lists,
                Layout::Pairs => PairsLayout::Pairs,
            }),
            table: TableConfig {
                header: self.header,
                separator: self.separator,
                quotes: self.quotes,
            },
            user: named(ColumnKind::User),
            item: named(ColumnKind::Item),
            rating: named(ColumnKind::Rating),
            time: named(ColumnKind::Time),
            missing_ids: self.missing_ids,
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        table: TableFlags,
    }

    fn config(flags: &[&str]) -> Result<PairsConfig> {
        Flags::try_parse_from([&["x"], flags].concat())?.table.config()
    }

    #[test]
    fn flags_become_settings() {
        assert_eq!(config(&[]).unwrap(), PairsConfig::default());
        let flags = "--layout pairs --header no --separator tab --quotes no \
                     --columns user=2,item=sku,time=4 --missing-ids drop";
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let found = config(&flags).unwrap();
        assert_eq!(found.layout, Some(PairsLayout::Pairs));
        assert_eq!(found.table.header, Some(false));
        assert_eq!(found.table.separator, Some(Separator::Byte(b'\t')));
        assert_eq!(found.user, Some(Column::Number(2)));
        assert_eq!(found.item, Some(Column::Name("sku".into())));
        assert_eq!((found.rating, found.time), (None, Some(Column::Number(4))));
        assert_eq!(found.missing_ids, MissingIds::Drop);
        for columns in [
            &["--header", "perhaps"][..],
            &["--separator", "long"],
            &["--columns", "who=1"],
            &["--columns", "user"],
            &["--missing-ids", "guess"],
            &["--layout", "lists", "--columns", "user=1"],
        ] {
            assert!(config(columns).is_err(), "{columns:?}");
        }
    }
}
