//! Tables of users: the same interactions in every format, and formats that are rejected.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write;

use glta_data::readers::{
    self, Column, ItemsConfig, MissingIds, PairsConfig, PairsLayout, Separator, Table, TableConfig,
};
use glta_data::{Dataset, Error, Result};

use common::{folder, gzip};

/// Returns `(user, item, rating, time)` of 12 users with 3 to 8 of 20 items each, by user.
fn rows() -> Vec<(u32, u32, u32, u32)> {
    let mut rows = Vec::new();
    for user in 1..=12u32 {
        for n in 0..3 + user % 6 {
            let item = (user * 7 + n * 3) % 20 + 1;
            rows.push((user, item, (user + n) % 5 + 1, 1_000_000_000 + user * 1000 + n));
        }
    }
    rows
}

/// Writes all rows in the format that `row` defines.
fn text(row: impl Fn(u32, u32, u32, u32) -> String) -> String {
    rows().into_iter().map(|(user, item, rating, time)| row(user, item, rating, time)).collect()
}

fn read(bytes: &[u8], config: &PairsConfig) -> Result<Dataset> {
    let folder = folder(&[("f.csv", bytes)]);
    readers::pairs(folder.path().join("f.csv"), config)
}

fn auto(bytes: &[u8]) -> Result<Dataset> {
    read(bytes, &PairsConfig::default())
}

#[track_caller]
fn refused(bytes: &[u8], config: &PairsConfig, parts: &[&str]) {
    let error = read(bytes, config).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

#[test]
fn one_data_set_in_every_notation() {
    let plain = auto(text(|u, i, r, t| format!("{u}\t{i}\t{r}\t{t}\n")).as_bytes()).unwrap();
    assert_eq!((plain.n_users(), plain.n_items(), plain.interactions().len()), (12, 20, 66));
    assert!(plain.ratings().is_some() && plain.timestamps().is_some());

    let csv = text(|u, i, r, t| format!("{u},{i},{r},{t}\n"));
    let header = "user_id,item_id,rating,timestamp\n";
    let date = |t: u32| {
        let seconds = t - 1_000_000_000;
        // 1,000,000,000 is 2001-09-09 01:46:40.
        let total = 46 * 60 + 40 + seconds;
        format!("2001-09-09 {:02}:{:02}:{:02}", 1 + total / 3600, total / 60 % 60, total % 60)
    };
    let utf16 = |to_bytes: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
        format!("{mark}{header}{csv}").encode_utf16().flat_map(to_bytes).collect()
    };
    let with_times: Vec<(&str, Vec<u8>)> = vec![
        ("UTF-16", utf16(u16::to_le_bytes, "\u{feff}")),
        ("UTF-16, big-endian", utf16(u16::to_be_bytes, "\u{feff}")),
        ("UTF-16 without a mark", utf16(u16::to_le_bytes, "")),
        ("UTF-16, gzipped", gzip(&utf16(u16::to_le_bytes, "\u{feff}"))),
        ("header", format!("{header}{csv}").into()),
        ("no header", csv.clone().into()),
        ("byte order mark", format!("\u{feff}{header}{csv}").into()),
        ("windows", format!("{header}{csv}").replace('\n', "\r\n").into()),
        ("old mac", format!("{header}{csv}").replace('\n', "\r").into()),
        ("no last line end", format!("{header}{csv}").trim_end().into()),
        ("empty lines", format!("\n{header}\n{csv}\n\n").into()),
        ("blanks around fields", format!("{header}{csv}").replace(',', " , ").into()),
        ("gzip", gzip(format!("{header}{csv}").as_bytes())),
        ("comment", format!("# exported\n% twice\n{header}{csv}").into()),
        ("comments within", format!("# exported\n{csv}# end\n").into()),
        ("concatenated", format!("{header}{csv}{header}").into()),
        ("double colons", csv.replace(',', "::").into()),
        ("semicolons", format!("{header}{csv}").replace(',', ";").into()),
        ("bars", format!("{header}{csv}").replace(',', "|").into()),
        ("blanks", csv.replace(',', "  ").into()),
        ("trailing separator", format!("{header}{csv}").replace('\n', ",\n").into()),
        (
            "all quoted",
            format!("{header}{csv}").replace(',', "\",\"").replace('\n', "\"\n\"").trim_end_matches('"').replacen("user_id", "\"user_id", 1).into(),
        ),
        (
            "recbole",
            format!(
                "user_id:token\titem_id:token\trating:float\ttimestamp:float\n{}",
                text(|u, i, r, t| format!("{u}\t{i}\t{r}.0\t{t}.0\n"))
            )
            .into(),
        ),
        (
            "item first",
            format!(
                "asin,overall,unixReviewTime,reviewerID\n{}",
                text(|u, i, r, t| format!("{i},{r},{t},{u}\n"))
            )
            .into(),
        ),
        (
            "pandas with its index",
            format!(
                ",userId,movieId,rating,timestamp\n{}",
                text(|u, i, r, t| format!("{t},{u},{i},{r},{t}\n"))
            )
            .into(),
        ),
        (
            "R's write.csv",
            format!(
                "\"\",\"user\",\"item\",\"rating\",\"time\"\n{}",
                text(|u, i, r, t| format!("\"{t}\",{u},{i},{r},{t}\n"))
            )
            .into(),
        ),
        (
            "R's write.table",
            format!(
                "\"user\" \"item\" \"rating\" \"time\"\n{}",
                text(|u, i, r, t| format!("\"{t}\" {u} {i} {r} {t}\n"))
            )
            .into(),
        ),
        (
            "decimal commas",
            format!("user;item;rating;time\n{}", text(|u, i, r, t| format!("{u};{i};{r},0;{t}\n")))
                .into(),
        ),
        (
            "milliseconds",
            format!("{header}{}", text(|u, i, r, t| format!("{u},{i},{r},{t}000\n"))).into(),
        ),
        (
            "dates",
            format!("{header}{}", text(|u, i, r, t| format!("{u},{i},{r},{}\n", date(t)))).into(),
        ),
        (
            "further columns",
            format!(
                "id,customer_id,comment,product_id,stars,event_time\n{}",
                text(|u, i, r, t| format!("{t},{u},\"good, \"\"{i}\"\"\n at {u}\",{i},{r},{t}\n"))
            )
            .into(),
        ),
        (
            "JSON lines",
            text(|u, i, r, t| {
                format!("{{\"timestamp\": {t}, \"user_id\": \"{u}\", \"item_id\": {i}, \"rating\": {r}}}\n")
            })
            .into(),
        ),
        (
            "Python dicts",
            text(|u, i, r, t| format!("{{'reviewerID': '{u}', 'asin': '{i}', 'overall': {r}.0, 'unixReviewTime': {t}}}\n"))
                .into(),
        ),
    ];
    for (notation, bytes) in &with_times {
        let data = auto(bytes).unwrap_or_else(|e| panic!("{notation}: {e}"));
        assert!(data == plain.clone().with_name("f"), "{notation}: {:?}", data.report());
        assert_eq!(data.report().files[0].rows, 66, "{notation}");
    }

    let mut lists = String::new();
    for user in 1..=12 {
        let _ = write!(lists, "{user}");
        for (_, item, ..) in rows().into_iter().filter(|row| row.0 == user) {
            let _ = write!(lists, " {item}");
        }
        lists += "\n";
    }
    for (notation, bytes) in [
        ("lists", lists.clone()),
        ("tabs", lists.replace(' ', "\t")),
        ("commas", lists.replace(' ', ",")),
        ("blank at the end", lists.replace('\n', " \n")),
        ("windows", lists.replace('\n', "\r\n")),
        ("with users alone", format!("{lists}13\n14 \n")),
    ] {
        let data = auto(bytes.as_bytes()).unwrap_or_else(|e| panic!("{notation}: {e}"));
        assert_eq!(data.interactions().len(), 66, "{notation}");
        let (layout, items) = (&data.report().files[0].layout, data.interactions().items(11));
        assert!(layout.starts_with("lists"), "{notation}: {layout}");
        assert_eq!(items, plain.interactions().items(11), "{notation}");
    }
}

#[test]
fn settings_override_what_is_recognised() {
    let config = PairsConfig {
        table: TableConfig {
            header: Some(false),
            separator: Some(Separator::Byte(b';')),
            quotes: Some(false),
        },
        user: Some(Column::Number(2)),
        item: Some(Column::Number(1)),
        ..PairsConfig::of(PairsLayout::Pairs)
    };
    let data = read(b"user_id;item_id\n\"a;b,c\n", &config).unwrap();
    assert_eq!(data.users(), ["item_id", "b,c"]);
    assert_eq!(data.items()[1].raw_id, "\"a");
    // The rows of `u.data` read as lists, as requested, with a note about their format.
    let lists = PairsConfig::of(PairsLayout::Lists);
    let data = read(b"1\t10\t4\n2\t11\t4\n1\t12\t5\n", &lists).unwrap();
    assert_eq!((data.n_items(), data.interactions().len()), (5, 6));
    assert_eq!(data.report().note("repeated_users").unwrap().count, 1);
    // `#` only starts a comment if the file starts with one.
    let data = auto(b"a,x\n#b,y\n").unwrap();
    assert_eq!(data.users(), ["a", "#b"]);
}

#[test]
fn contradictions_are_rejected_with_their_lines() {
    let auto = PairsConfig::default();
    for (bytes, parts) in [
        // Rows of pairs with and without a rating.
        ("1,2,5\n1,3,4\n2,3\n2,4,4\n", &["line 3", "expected 3 fields", "found 2"][..]),
        ("1,2,5\n1,3,4,9\n2,3,1\n2,4,4\n", &["line 2", "found 4"]),
        // As long as lists, but with a user twice.
        ("1 2 3\n2 4\n1 5 6 7\n3 9\n", &["line 2", "found 2", "--layout lists"]),
        // The layout is ambiguous.
        ("1 2 3\n2 4 5\n3 6 7\n", &["line 1", "could be", "lists of 2 items", "--layout"]),
        ("1\n2\n", &["line 1", "users and items"]),
        // Quotes.
        ("a,b\n\"c,d\ne,f\n", &["line 2", "not closed", "--quotes no"]),
        ("a,b\nc,\"d\" e\n", &["line 2", "closing quote", "--quotes no"]),
        ("a,\"b\nc,d\ne,\"f\"\n", &["line 3", "line 1", "closing quote"]),
        // Line ends of several kinds.
        ("a,b\nc,d\re,f\n", &["line 2", "carriage return"]),
        // Headers.
        ("user_id,price\n1,2\n", &["line 1", "items", "user_id,price", "--columns"]),
        // Values.
        ("user,item,rating\n1,2,5\n1,3,good\n", &["line 3", "number", "good"]),
        ("[\n{\"user\": 1}]\n", &["line 1", "JSON array"]),
        ("{\"user\": 1, \"item\": 2}\n{\"user\": 1, \"item\": 2\n", &["line 2", "JSON object"]),
        ("{\"a\": 1, \"b\": 2}\n", &["line 1", "of users", "a b", "--columns"]),
        (
            "{\"user\": 123456789012345678901234567890, \"item\": 2}\n",
            &["line 1", "write it in quotes"],
        ),
    ] {
        refused(bytes.as_bytes(), &auto, parts);
    }
    // A column with only the name of ratings is not used.
    let words = read(b"user,item,rating\n1,2,good\n1,3,bad\n", &auto).unwrap();
    assert!(words.ratings().is_none());
    for (bytes, what) in [
        (&b"PK\x03\x04zip"[..], "zip archive or a spreadsheet"),
        (b"PAR1xx", "Parquet"),
        (b"\xff\xfea\0,\0\0\xd8", "UTF-16"),
        (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
        (b"a,b\nc\0,d\n", "binary"),
    ] {
        let error = read(bytes, &auto).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(what), "{cause}");
    }
    let named = |user: &str| PairsConfig { user: Some(user.parse().unwrap()), ..auto.clone() };
    refused(b"user,item\n1,2\n", &named("customer"), &["line 1", "`customer`", "user, item"]);
    refused(b"1,2\n", &named("3"), &["no column 3", "has 2 columns"]);
    refused(b"1,2\n", &named("customer"), &["no header", "1 to 2"]);
    let rated = PairsConfig { rating: Some(Column::Number(3)), ..auto.clone() };
    refused(b"1,2,5\n1,3,\n", &rated, &["line 2", "a number in column 3"]);
    // After the part of the file from which the format is recognised.
    let mut long = String::from("user,item\n");
    for n in 0..20_000 {
        let _ = writeln!(long, "{},{}", n % 100, n);
    }
    refused((long.clone() + "1\n").as_bytes(), &auto, &["line 20002", "as the header"]);
    let mut long = String::new();
    for n in 0..20_000 {
        let _ = writeln!(long, "{n} 1 2 {}", if n % 2 == 0 { "3" } else { "" });
    }
    refused(
        (long + "7 5 6\n").as_bytes(),
        &auto,
        &["line 20001", "user `7`", "line 8", "--layout"],
    );
}

#[test]
fn a_missing_id_is_an_error_or_dropped() {
    for missing in ["", " ", "nan", "NaN", "None", "NULL", "<NA>", "\\N", "\"\""] {
        let bytes = format!("u1,i1,5\nu2,{missing},4\n{missing},i3,3\nu2,i1,2\n");
        let auto = PairsConfig::default();
        refused(
            bytes.as_bytes(),
            &auto,
            &["f.csv, line 2", "item id is missing", "--missing-ids drop"],
        );
        let drop = PairsConfig { missing_ids: MissingIds::Drop, ..auto };
        let data = read(bytes.as_bytes(), &drop).unwrap();
        assert_eq!(data.users(), ["u1", "u2"], "{missing}");
        assert_eq!((data.n_items(), data.interactions().len()), (1, 2), "{missing}");
        let note = data.report().note("rows_without_id").unwrap();
        assert_eq!((note.count, note.of), (2, Some(4)));
        assert_eq!(note.examples, ["line 2", "line 3"]);
    }
    let drop = PairsConfig { missing_ids: MissingIds::Drop, ..PairsConfig::default() };
    let error = read(b"user,item\n,1\nnan,2\n", &drop).unwrap_err();
    assert!(matches!(error, Error::Emptied { .. }), "{error}");
    assert!(error.to_string().contains("none of the 2 rows"), "{error}");
    refused(b"{\"user\": null, \"item\": 1}\n", &PairsConfig::default(), &["line 1", "user id"]);
    refused(b"{\"item\": 1}\n{\"item\": 2, \"user\": 3}\n", &PairsConfig::default(), &["line 1"]);
    refused(b"1 2 3\n2 4 5 6\n3 nan\n", &PairsConfig::default(), &["line 3", "item id"]);
}

#[test]
fn ids_stay_as_they_are_written() {
    let ids = ["007", "7", "7.0", "12345678901234567890123", "Ärger", "a\u{308}", "ä", "1e5", "-3"];
    let text: String = ids.iter().map(|id| format!("{id}\tx\n")).collect();
    assert_eq!(auto(text.as_bytes()).unwrap().users(), ids);
    let text: String =
        ids.iter().map(|id| format!("{{\"item\": \"x\", \"user\": \"{id}\"}}\n")).collect();
    assert_eq!(auto(text.as_bytes()).unwrap().users(), ids);
    let data = auto("\"Last, First\",\"say \"\"x\"\"\"\n\"Last, First\",y\n".as_bytes()).unwrap();
    assert_eq!(data.users(), ["Last, First"]);
    assert_eq!(data.items()[0].raw_id, "say \"x\"");
    // With and without quotes it is the same user.
    assert_eq!(auto(b"\"u1\",\"i1\"\nu1,i2\n").unwrap().n_users(), 1);
}

#[test]
fn repeated_pairs_and_columns_with_gaps_are_reported() {
    let data = auto(b"user,item,time\na,x,5\na,x,9\na,y,7\n").unwrap();
    let note = data.report().note("repeated_pairs").unwrap();
    assert_eq!(
        note.to_string(),
        "1 of 3 rows repeat a pair of user and item; the latest of each was kept, such as a x"
    );
    assert_eq!(data.timestamps(), Some(&[9, 7][..]));
    let data = auto(b"user,item,rating\na,x,5\na,y,\n").unwrap();
    assert!(data.ratings().is_none());
    assert_eq!(data.report().note("rows_without_rating").unwrap().count, 1);
    let report = serde_json::to_value(data.report()).unwrap();
    assert_eq!(report["notes"][0]["kind"], "rows_without_rating");
    let back: glta_data::Report = serde_json::from_value(report).unwrap();
    assert_eq!(&back, data.report());
}

#[test]
fn a_filter_that_leaves_nothing_is_named() {
    let data = auto(b"user,item,rating\na,x,5\nb,y,1\n").unwrap().min_rating(2.0).unwrap();
    let core = data.k_core(2, 2);
    let error = core.require_interactions().unwrap_err().to_string();
    assert!(error.contains("k_core(2, 2) removes all of 1 users, 1 items and 1 inter"), "{error}");
    let error = glta_data::Split::new(&core, &Default::default()).unwrap_err().to_string();
    assert!(error.contains("k_core(2, 2)"), "{error}");
}

#[test]
fn own_items_with_texts() {
    let orders = "customer_id,product_id\nann,1\nbob,1\nbob,02\n";
    let products = "product_id;name;category;price;description\n1;\"Tea; green\";Drinks|Hot;2,50;<b>Good</b>\n\
                    3;Bread;;1;\n1;Again;;;\n";
    let files = folder(&[("orders.csv", orders.as_bytes()), ("p.csv", products.as_bytes())]);
    let path = |name| files.path().join(name);
    let config = PairsConfig::default();
    let items = ItemsConfig::default();
    let shop = readers::tables(path("orders.csv"), path("p.csv"), &config, &items).unwrap();
    let tea = &shop.items()[0];
    assert_eq!((&*tea.title, &*tea.description), ("Tea; green", "Good"));
    assert_eq!(tea.genres, ["Drinks", "Hot"]);
    assert_eq!(tea.other["price"], "2,50");
    assert!(shop.items()[1].is_textless());
    assert_eq!(shop.items()[2].title, "Bread");
    let report = shop.report();
    assert_eq!(report.note("items_without_metadata").unwrap().examples, ["02"]);
    assert_eq!(report.note("metadata_without_item").unwrap().examples, ["3"]);
    assert_eq!(report.note("repeated_metadata").unwrap().count, 1);

    // Ids that differ only in their spelling.
    for (other, expected) in [("1.0", "`1` and `1.0`"), ("001", "`1` and `001`"), ("x", "x")] {
        let products = format!("product_id,name\n{other},Tea\n");
        std::fs::write(path("p.csv"), products).unwrap();
        let error =
            readers::tables(path("orders.csv"), path("p.csv"), &config, &items).unwrap_err();
        assert!(matches!(error, Error::NothingJoins(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    std::fs::write(path("p.csv"), "product_id,name\n1,Tea\n2,Milk\n").unwrap();
    let shop = readers::tables(path("orders.csv"), path("p.csv"), &config, &items).unwrap();
    assert_eq!(shop.report().note("ids_nearly_alike").unwrap().examples, ["`02` and `2`"]);

    // JSON lines whose later rows have further keys, and RecBole's types.
    let json = "{\"id\": 1, \"title\": \"Tea\"}\n{\"id\": \"02\", \"title\": null, \"tags\": [\"a\", \"b\"]}\n";
    std::fs::write(path("p.csv"), json).unwrap();
    let shop = readers::tables(path("orders.csv"), path("p.csv"), &config, &items).unwrap();
    assert_eq!(shop.items()[1].other["tags"], "a, b");
    let atomic = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n1\tToy Story\tComedy Drama\n02\tHeat\tCrime\n";
    std::fs::write(path("p.csv"), atomic).unwrap();
    let films = readers::tables(path("orders.csv"), path("p.csv"), &config, &items).unwrap();
    assert_eq!(films.items()[0].title, "Toy Story");
    assert_eq!(films.items()[0].genres, ["Comedy", "Drama"]);
}

#[test]
fn a_table_is_read_row_by_row() {
    let files = folder(&[("t.csv", b"a,b\n1,\"x\ny\"\n2,z\n")]);
    let mut table = Table::open(files.path().join("t.csv"), &TableConfig::default()).unwrap();
    assert_eq!((table.columns(), table.width()), (&["a".to_owned(), "b".into()][..], 2));
    assert_eq!(table.to_string(), "comma-separated, with a header");
    let mut read = Vec::new();
    while let Some(row) = table.next_row().unwrap() {
        read.push((row.line(), row.text(1).unwrap().to_owned(), row.bytes(7).len()));
    }
    assert_eq!(read, [(2, "x\ny".into(), 0), (4, "z".into(), 0)]);
    assert_eq!(table.counts().rows, 2);
}

#[test]
fn both_files_of_a_split_have_one_layout() {
    let split = |train: &str, test: &str, config: &PairsConfig| {
        let files = folder(&[("train", train.as_bytes()), ("test", test.as_bytes())]);
        let path = |name| files.path().join(name);
        readers::split_pairs("s", path("train"), path("test"), config)
    };
    let auto = PairsConfig::default();
    // Lists of equal lengths are read as lists, like the other file.
    let (data, parts) = split("1 5 6 7\n2 5\n", "1 8 9\n2 6 7\n", &auto).unwrap();
    assert_eq!((data.interactions().len(), parts.test.len()), (8, 4));
    let (_, parts) = split("1 5\n1 6\n2 7\n", "1 7\n2 5\n1 5\n", &auto).unwrap();
    assert_eq!((parts.train.len(), parts.test.len()), (3, 2));
    // Pairs are not.
    let error = split("1 5 6 7\n2 5\n", "1 8 4\n1 9 3\n2 6 5\n", &auto).unwrap_err().to_string();
    assert!(error.contains("test, line 2") && error.contains("--layout"), "{error}");
    let error = split("1 5\n1 6\n2 7\n", "1 7 8\n2 5 6 9\n", &auto).unwrap_err().to_string();
    assert!(error.contains("test, line 2") && error.contains("--layout lists"), "{error}");
    let lists = PairsConfig::of(PairsLayout::Lists);
    assert!(split("1 5\n1 6\n2 7\n", "1 7 8\n2 5 6 9\n", &lists).is_ok());
}
