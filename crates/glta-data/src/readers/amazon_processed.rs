//! The processed Amazon 2018 files of the MiniOneRec project.

use serde::Deserialize;
use serde_json::Value;

use super::catalogue::{Catalogue, described};
use super::input::{Input, Source};
use super::json::{Entries, Texts, whole};
use super::pairs::read as read_pairs;
use super::pairs_config::{PairsConfig, PairsLayout};
use super::python;
use super::table::{Column, Table, TableConfig};
use crate::dataset::Collector;
use crate::{Dataset, Result};

/// Ending of the name of the items file, which contains a JSON object that maps the index of an
/// item to its texts.
pub(crate) const ITEMS: &str = ".item.json";

#[derive(Deserialize)]
struct Texted {
    #[serde(default)]
    title: Texts,
    /// Texts as a Python list inside a string.
    #[serde(default)]
    description: Texts,
    #[serde(default)]
    brand: Texts,
    #[serde(default)]
    categories: Texts,
}

/// Reads the interactions and the items of a category. Interactions come from `interactions.tsv`,
/// which has a header and then rows of user and item. If it is missing, they come from the
/// histories and targets in those of `train.csv`, `valid.csv` and `test.csv` that exist.
pub(crate) fn read(source: &Source, category: &str) -> Result<Dataset> {
    let items = source.one_file(&format!("*{ITEMS}"), "category", |name| {
        name.ends_with(ITEMS) && name.starts_with(category)
    })?;
    let mut collector = Collector::new(false, false);
    if source.has("interactions.tsv") {
        let table = TableConfig { header: Some(true), ..TableConfig::default() };
        let config = PairsConfig { table, ..PairsConfig::of(PairsLayout::Pairs) };
        source.read("interactions.tsv", |input| read_pairs(input, &config, &mut collector))?;
    } else {
        let files = ["valid.csv", "test.csv", "train.csv"];
        for file in files.into_iter().filter(|file| source.has(file)) {
            source.read(file, |input| read_histories(input, &mut collector))?;
        }
        if collector.is_empty() {
            return Err(source.missing("interactions.tsv, train.csv, valid.csv or test.csv", ""));
        }
    }
    let mut catalogue = Catalogue::new(collector);
    let texts: Entries<Texted> = source.read(&items, whole)?;
    for (id, texts) in texts.0 {
        catalogue.add(&id, || {
            let mut item = described(&id, &texts.title, &unquoted(texts.description));
            item.genres = texts.categories.cleaned();
            let brand = texts.brand.joined(", ");
            if !brand.is_empty() {
                item.other.insert("brand".into(), brand);
            }
            item
        })?;
    }
    catalogue.finish(items.strip_suffix(ITEMS).unwrap_or(&items))
}

/// Returns the texts of a list literal, and other texts unchanged. Some lists have unescaped quotes
/// in their texts. Of these lists, only the brackets and the outer quotes are removed.
fn unquoted(description: Texts) -> Texts {
    match description.0.as_slice() {
        [literal] if literal.starts_with('[') => match python::parse(literal) {
            Ok(list) => Texts::deserialize(list).unwrap_or(description),
            Err(_) => {
                let frame = ['[', ']', '\'', '"'];
                Texts(vec![literal.trim_matches(frame).replace("', '", " ")])
            }
        },
        _ => description,
    }
}

/// Reads rows `user_id, …, history_item_id, item_id, …`: a user's past items and the next item.
fn read_histories(input: Input<'_>, collector: &mut Collector) -> Result<()> {
    let config = TableConfig { header: Some(true), ..TableConfig::default() };
    let mut table = Table::new(input, &config)?;
    let column = |name: &str| table.column(&Column::Name(name.into()));
    let (user, history, item) =
        (column("user_id")?, column("history_item_id")?, column("item_id")?);
    while let Some(row) = table.next_row()? {
        let past = python::parse(row.text(history)?).and_then(|value| match value {
            Value::Array(items) => Ok(items),
            _ => Err("a list of items was expected".into()),
        });
        let past =
            past.map_err(|problem| row.error(format!("column `history_item_id`: {problem}")))?;
        for past in past {
            let id = past.as_str().map_or_else(|| past.to_string(), String::from);
            collector.push(row.text(user)?, &id, None, None).map_err(|e| row.fault(e))?;
        }
        let (user, item) = (row.text(user)?, row.text(item)?);
        collector.push(user, item, None, None).map_err(|e| row.fault(e))?;
    }
    let file = table.report("histories");
    collector.report.files.push(file);
    Ok(())
}
