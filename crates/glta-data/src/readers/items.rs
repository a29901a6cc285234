use std::path::Path;

use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::html::clean;
use super::input::{Input, open_file};
use super::pairs::collect;
use super::pairs_config::{MissingIds, PairsConfig};
use super::python;
use super::table::{
    Column, DESCRIPTION, GENRES, ITEM, Row, TITLE, Table, TableConfig, find, typed,
};
use crate::ids::is_missing;
use crate::report::Note;
use crate::{Dataset, Error, Item, Result};

/// Settings for reading a table of items. If a field is `None`, the reader recognises the column by
/// its name in the header (`product_id`, `name`, `category`, `description`, …). If no name is
/// known, the first column is the id and the second the title.
///
/// All other columns become texts in [`Item::other`] with their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemsConfig {
    /// Header, separator and quoting of the table.
    pub table: TableConfig,
    /// Column of the ids.
    pub id: Option<Column>,
    /// Column of the titles. A table without titles is accepted.
    pub title: Option<Column>,
    /// Column of the genres or categories. A table without genres is accepted. A field is a list
    /// literal, or texts separated by `|` or `;` (in RecBole's `token_seq` by spaces).
    pub genres: Option<Column>,
    /// Column of the descriptions. A table without descriptions is accepted.
    pub description: Option<Column>,
    /// Treatment of rows without an id. Default [`MissingIds::Refuse`].
    pub missing_ids: MissingIds,
}

/// Reads a data set from a table of interactions, as [`pairs`](super::pairs()) does, and a table of
/// items. Each file is read as a [`Table`]. The name of the data set is that of the interactions
/// file up to the first dot.
///
/// If an item is repeated, the first row counts. Items without interactions follow the others and
/// can be recommended by their texts. [`Dataset::k_core`] with 1 removes them. Items without a row
/// have no text. [`Dataset::report`] counts the items of both kinds.
///
/// ```
/// use glta_data::readers::{Column, ItemsConfig, PairsConfig, tables};
///
/// # let folder = tempfile::tempdir()?;
/// # let [orders, products] = ["orders.csv", "products.csv"].map(|name| folder.path().join(name));
/// std::fs::write(&orders, "customer_id,product_id\nann,1\nbob,1\nbob,2\n")?;
/// std::fs::write(&products, "product_id,name,brand\n1,\"Tea, green\",Leaf\n2,Milk,\n3,Bread,\n")?;
/// let user = Some(Column::Name("customer_id".into()));
/// let config = PairsConfig { user, ..Default::default() };
/// let shop = tables(&orders, &products, &config, &ItemsConfig::default())?;
/// assert_eq!(shop.items()[0].title, "Tea, green");
/// assert_eq!(shop.items()[0].other["brand"], "Leaf");
/// assert_eq!((shop.n_items(), shop.clone().k_core(1, 1).n_items()), (3, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns the errors of [`pairs`](super::pairs()), and [`Error::NothingJoins`] if no row describes
/// an item with interactions.
pub fn tables(
    interactions: impl AsRef<Path>,
    items: impl AsRef<Path>,
    config: &PairsConfig,
    items_config: &ItemsConfig,
) -> Result<Dataset> {
    let path = interactions.as_ref();
    let collector = collect(open_file(path)?, config)?;
    let mut catalogue = Catalogue::new(collector).with_all();
    read(open_file(items.as_ref())?, items_config, &mut catalogue)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    catalogue.finish(name.split('.').next().unwrap_or_default())
}

/// Adds the rows of a table of items to the catalogue.
fn read(input: Input<'_>, config: &ItemsConfig, catalogue: &mut Catalogue) -> Result<()> {
    let mut table = Table::new(input, &config.table)?;
    let columns = Columns::of(&table, config)?;
    let mut missing = 0;
    while let Some(row) = table.next_row()? {
        let id = row.text(columns.id)?.to_owned();
        if row.is_blank() {
            continue;
        }
        if row.is_compound(columns.id) {
            let problem =
                format!("the id of the item is a list or an object, `{id}`; name another key");
            return Err(row.error(problem));
        }
        if is_missing(&id) {
            if config.missing_ids == MissingIds::Drop {
                missing += 1;
                continue;
            }
            let error = Error::MissingId { kind: "item", raw: id };
            let problem =
                format!("{error}; correct the row, or leave such rows out (--missing-ids drop)");
            return Err(row.error(problem));
        }
        let fields = fields(&row)?;
        catalogue.add(&id, || columns.item(&id, &fields, table.columns()))?;
    }
    let file = table.report("items");
    if missing > 0 {
        let text = "rows have no item id; they are left out";
        let note = Note::new("items_without_id", missing, Some(table.counts().rows), text);
        catalogue.warn(&file.file, note);
    }
    catalogue.read(file);
    Ok(())
}

fn fields(row: &Row<'_>) -> Result<Vec<String>> {
    (0..row.len()).map(|n| row.text(n).map(str::to_owned)).collect()
}

/// Indices of the columns of a table of items.
struct Columns {
    id: usize,
    title: Option<usize>,
    genres: Option<usize>,
    description: Option<usize>,
}

impl Columns {
    fn of(table: &Table<'_>, config: &ItemsConfig) -> Result<Self> {
        let named = |column: &Option<Column>| column.as_ref().map(|c| table.column(c)).transpose();
        let names = table.columns();
        let known = find(ITEM, names).or_else(|| find(&["id"], names));
        let id = match named(&config.id)?.or(known) {
            Some(id) => id,
            None if names.is_empty() => 0,
            None => {
                let problem = "no column is recognised as that of the item ids; name \
                               it"
                .to_owned();
                return Err(table.malformed(problem));
            }
        };
        let free = |column: Option<usize>| column.filter(|&column| column != id);
        let second = (names.is_empty() && table.width() > 1).then_some(1);
        Ok(Self {
            id,
            title: named(&config.title)?.or(free(find(TITLE, names).or(second))),
            genres: named(&config.genres)?.or(free(find(GENRES, names))),
            description: named(&config.description)?.or(free(find(DESCRIPTION, names))),
        })
    }

    fn item(&self, id: &str, fields: &[String], names: &[String]) -> Item {
        let mut item = Item::new(id);
        for (n, field) in fields.iter().enumerate() {
            // A field that stands for a missing value is not a text.
            if n == self.id || is_missing(field) {
                continue;
            }
            let name = names.get(n).map(String::as_str).unwrap_or_default();
            let (name, kind) = typed(name).unwrap_or((name, ""));
            let is = |column: Option<usize>| column == Some(n);
            if is(self.title) {
                item.title = clean(field);
            } else if is(self.genres) {
                item.genres = genres(field, kind);
            } else if is(self.description) {
                item.description = clean(field);
            } else {
                let text = clean(field);
                let name = match name {
                    "" => format!("column {}", n + 1),
                    // An item has fields with these names, so the column gets another name.
                    "title" | "genres" | "description" | "raw_id" => format!("{name} (column)"),
                    name => name.to_owned(),
                };
                item.other.insert(name, text);
            }
        }
        item
    }
}

/// Splits a field into its genres.
fn genres(field: &str, kind: &str) -> Vec<String> {
    let parts: Vec<String> = match python::parse(field) {
        Ok(serde_json::Value::Array(list)) => {
            list.iter().filter_map(|part| part.as_str().map(String::from)).collect()
        }
        _ if kind == "token_seq" => field.split_whitespace().map(String::from).collect(),
        _ => field.split(['|', ';']).map(String::from).collect(),
    };
    let mut genres = parts.iter().map(|part| clean(part)).collect::<Vec<_>>();
    genres.retain(|genre| !genre.is_empty() && genre != "(no genres listed)");
    genres
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genres_in_any_notation() {
        for (field, kind) in [
            ("Sci-Fi|Drama", ""),
            ("Sci-Fi; Drama", ""),
            ("['Sci-Fi', 'Drama']", ""),
            ("[\"Sci-Fi\", \"Drama\"]", ""),
            ("Sci-Fi Drama", "token_seq"),
        ] {
            assert_eq!(genres(field, kind), ["Sci-Fi", "Drama"], "{field}");
        }
        assert_eq!(genres("Home, Kitchen & Bath", ""), ["Home, Kitchen & Bath"]);
    }
}
