//! Files with the oddities of programs give the right values, or an error that says what to do.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;

use glta_data::readers::{self, Column, ItemsConfig, MissingIds, PairsConfig};
use glta_data::{Dataset, Result};

use common::{folder, gzip};

/// Returns 12 users with 5 of 12 items each, as rows `row(user, item, nth)`.
fn text(row: impl Fn(u32, u32, u32) -> String) -> String {
    (0..12)
        .flat_map(|user| (0..5).map(move |n| (user, n)))
        .map(|(user, n)| row(user, (user * 3 + n * n) % 12, n))
        .collect()
}

fn read_with(bytes: &[u8], config: &PairsConfig) -> Result<Dataset> {
    let folder = folder(&[("f.csv", bytes)]);
    readers::pairs(folder.path().join("f.csv"), config)
}

fn read(text: &str) -> Result<Dataset> {
    read_with(text.as_bytes(), &PairsConfig::default())
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = read(text).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

fn named(column: &str) -> Option<Column> {
    Some(column.parse().unwrap())
}

#[test]
fn additions_of_programs_are_not_data() {
    let rows = text(|u, i, _| format!("u{u},i{i}\n"));
    let plain = read(&format!("user_id,item_id\n{rows}")).unwrap();
    assert_eq!((plain.n_users(), plain.n_items()), (12, 8));
    let bars = rows.replace(',', " | ");
    let half = rows.len() / 2 + rows[rows.len() / 2..].find('\n').unwrap() + 1;
    let marked = format!("\u{feff}user_id,item_id\n{}", &rows[..half]);
    for (what, text) in [
        (
            "a spreadsheet's separator",
            format!("sep=;\nuser_id;item_id\n{}", rows.replace(',', ";")),
        ),
        (
            "a spreadsheet's separator on Windows",
            format!("\u{feff}sep=,\r\nuser_id,item_id\r\n{}", rows.replace('\n', "\r\n")),
        ),
        (
            "a separator that says tab",
            format!("sep=\t\nuser_id\titem_id\n{}", rows.replace(',', "\t")),
        ),
        ("a spreadsheet's empty rows", format!("user_id,item_id\n{rows},\n,\n")),
        ("psql", format!(" user_id | item_id \n---------+---------\n{bars}")),
        (
            "Markdown",
            format!(
                "| user | item |\n|---|:--|\n| {}",
                bars.trim_end().replace('\n', " |\n| ") + " |\n"
            ),
        ),
        ("joined files with marks", format!("{marked}\u{feff}user_id,item_id\n{}", &rows[half..])),
    ] {
        let data = read(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(data.users(), plain.users(), "{what}");
        assert!(data == plain, "{what}");
    }
    let empty = read(&format!("user_id,item_id\n{rows},\n,\n")).unwrap();
    assert_eq!(empty.report().note("empty_rows").unwrap().count, 2);
    // Also without byte order marks and a header.
    let data = read(&format!("\u{feff}{}\u{feff}{}", &rows[..half], &rows[half..])).unwrap();
    assert_eq!(data.users(), plain.users());
    // Two gzip members are one file.
    let whole = format!("user_id,item_id\n{rows}");
    let (one, two) = whole.as_bytes().split_at(100);
    let members = [gzip(one), gzip(two)].concat();
    assert!(read_with(&members, &PairsConfig::default()).unwrap() == plain);
    // Empty rows at the end of a table of items.
    let files =
        folder(&[("f.csv", whole.as_bytes()), ("p.csv", b"item_id,name\ni0,Tea\n,\ni3,Oak\n,\n")]);
    let path = |name: &str| files.path().join(name);
    let config = PairsConfig::default();
    let shop = readers::tables(path("f.csv"), path("p.csv"), &config, &ItemsConfig::default());
    assert_eq!(shop.unwrap().items()[0].title, "Tea");
}

#[test]
fn ambiguous_columns_are_rejected() {
    let twice = text(|u, i, _| format!("u{u},i{i},x{i}\n"));
    refused(
        &format!("user_id,item_id,item_id\n{twice}"),
        &["line 1", "several columns have the name `item_id`", "--columns"],
    );
    let config = PairsConfig { item: named("3"), user: named("1"), ..PairsConfig::default() };
    let data = read_with(format!("user_id,item_id,item_id\n{twice}").as_bytes(), &config).unwrap();
    assert_eq!(data.items()[0].raw_id, "x0");
    // A separator inside a text that is not quoted is no column of row names.
    let escaped = text(|u, i, _| format!("u{u},i{i},a\\, b\n"));
    refused(
        &format!("user_id,item_id,text\n{escaped}"),
        &["line 2", "expected 3 fields", "found 4"],
    );
    let single = text(|u, i, _| format!("'u{u}','i{i}'\n"));
    refused(&format!("'user_id','item_id'\n{single}"), &["line 1", "single quotes"]);
    for separator in ["^", "\u{1}"] {
        let rows = text(|u, i, _| format!("u{u}{separator}i{i}\n"));
        refused(&rows, &["line 1", "--separator"]);
        let mut config = PairsConfig::default();
        config.table.separator = Some(separator.parse().unwrap());
        assert_eq!(read_with(rows.as_bytes(), &config).unwrap().n_users(), 12);
    }
}

#[test]
fn objects_instead_of_ids_are_rejected() {
    let nested =
        text(|u, i, _| format!("{{\"user\": {{\"id\": \"u{u}\"}}, \"item_id\": \"i{i}\"}}\n"));
    refused(&nested, &["line 1", "the user is a list or an object", "--columns user=KEY"]);
    let list =
        text(|u, i, _| format!("{{\"user_id\": \"u{u}\", \"item_id\": [\"i{i}\", \"x\"]}}\n"));
    refused(&list, &["line 1", "the item is a list", "i0, x"]);
    refused(
        "{\"user_id\": 1, \"item_id\": 2, \"item_id\": 3}\n",
        &["line 1", "`item_id` occurs twice"],
    );
    refused("{\n \"user_id\": 1,\n \"item_id\": 2\n}\n", &["line 1", "over several lines"]);
    // In other columns they are texts.
    let other = text(|u, i, _| {
        format!(
            "{{\"user_id\": \"u{u}\", \"item_id\": \"i{i}\", \"tags\": [\"a\"], \"x\": {{}}}}\n"
        )
    });
    assert_eq!(read(&other).unwrap().n_users(), 12);
    let files =
        folder(&[("f", other.as_bytes()), ("p", b"{\"id\": [\"i0\"], \"title\": \"Tea\"}\n")]);
    let path = |name: &str| files.path().join(name);
    let items =
        readers::tables(path("f"), path("p"), &PairsConfig::default(), &ItemsConfig::default());
    let error = items.unwrap_err().to_string();
    assert!(error.contains("line 1") && error.contains("a list or an object"), "{error}");
}

#[test]
fn ambiguous_values_are_rejected() {
    // A date without separators is not an epoch in seconds.
    let bare = text(|u, i, n| format!("u{u},i{i},2024013{}\n", n % 2));
    let data = read(&format!("user_id,item_id,timestamp\n{bare}")).unwrap();
    assert!(data.timestamps().unwrap().iter().all(|&t| t >= 1_706_572_800), "30 January 2024");
    let (header, thousands) =
        ("user_id,item_id,rating\n", text(|u, i, n| format!("u{u},i{i},\"1,{n}00\"\n")));
    let table = format!("{header}{thousands}");
    let data = read(&table).unwrap();
    let note = data.report().note("unused_column").unwrap();
    assert!(data.ratings().is_none() && note.message.contains("`rating`"), "{note}");
    assert_eq!(note.examples, ["1,000"]);
    let config = PairsConfig { rating: named("rating"), ..PairsConfig::default() };
    let error = read_with(table.as_bytes(), &config).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("thousand"), "{error}");
    // Days and months in an ambiguous order.
    let slashes = text(|u, i, n| format!("u{u},i{i},0{}/02/2024\n", n + 1));
    let data = read(&format!("user_id,item_id,date\n{slashes}")).unwrap();
    let note = data.report().note("unused_column").unwrap();
    assert!(note.message.contains("`date`") && note.message.contains("ISO 8601"), "{note}");
    assert!(data.timestamps().is_none());
    let config = PairsConfig { time: named("date"), ..PairsConfig::default() };
    let error = read_with(format!("user_id,item_id,date\n{slashes}").as_bytes(), &config);
    assert!(error.unwrap_err().to_string().contains("line 2"));
}

#[test]
fn ids_in_two_spellings_are_reported() {
    let mut rows = String::from("user_id,item_id\n");
    for user in 1..10 {
        let _ = writeln!(rows, "{user},a\n{user}.0,b\n0{user},c");
    }
    let data = read(&rows).unwrap();
    assert_eq!(data.n_users(), 27, "ids stay as they are written");
    let note = data.report().note("alike_ids").unwrap();
    assert_eq!((note.count, note.of), (18, Some(27)));
    assert_eq!(note.examples[0], "`1` and `1.0`");
    assert!(read("user_id,item_id\n007,a\n8.0,b\n").unwrap().report().note("alike_ids").is_none());
}

#[test]
fn dropping_missing_ids_keeps_the_other_rows() {
    let rows = text(|u, i, _| format!("u{u},i{i}\n"));
    let config = PairsConfig { missing_ids: MissingIds::Drop, ..PairsConfig::default() };
    let table = format!("user_id,item_id\n{rows},i3\n,\n");
    let data = read_with(table.as_bytes(), &config).unwrap();
    assert_eq!(data.report().note("rows_without_id").unwrap().count, 1);
    assert_eq!(data.report().note("empty_rows").unwrap().count, 1);
    assert_eq!(data.n_users(), 12);
}
