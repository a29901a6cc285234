//! Publishers' files as users have them: archives of other systems, several files of a kind,
//! records with missing parts, metadata of other items.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use glta_data::readers::{self, AmazonConfig, GoodreadsConfig, MovieLensConfig};
use glta_data::{Dataset, Error, Report};

use common::{CSV, DAT, folder, gzip, zip_of};

#[track_caller]
fn names(error: &Error, parts: &[&str]) {
    let error = error.to_string();
    for part in parts {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

fn note(report: &Report, kind: &str) -> (u64, Option<u64>, Vec<String>) {
    let note = report.note(kind).unwrap_or_else(|| panic!("no {kind} in {report:?}"));
    (note.count, note.of, note.examples.clone())
}

#[test]
fn archives_from_other_systems() {
    let parent = tempfile::tempdir().unwrap();
    let plain = readers::movielens(folder(CSV).path()).unwrap().with_name("ml-25m");
    let fork: &[u8] = b"\0\x05\x16\x07fork";
    let [ratings, movies] = [CSV[0].1, CSV[1].1];
    for (name, entries) in [
        (
            "mac",
            vec![
                ("ml-25m/", None),
                ("ml-25m/ratings.csv", Some(ratings)),
                ("__MACOSX/ml-25m/._ratings.csv", Some(fork)),
                ("ml-25m/._ratings.csv", Some(fork)),
                ("ml-25m/.DS_Store", Some(fork)),
                ("ml-25m/movies.csv", Some(movies)),
                ("ml-25m/__MACOSX/movies.csv", Some(fork)),
            ],
        ),
        (
            "windows",
            vec![
                ("ml-25m\\ratings.csv", Some(ratings)),
                ("ml-25m\\movies.csv", Some(movies)),
                ("ml-25m\\Thumbs.db", Some(fork)),
            ],
        ),
    ] {
        let path = zip_of(parent.path(), name, &entries);
        let data = readers::movielens(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(data.with_name("ml-25m") == plain, "{name}");
    }

    // Extracted into a folder of the same name, or not extracted.
    let nested = tempfile::tempdir().unwrap();
    let inner = nested.path().join("ml-25m/ml-25m");
    fs::create_dir_all(&inner).unwrap();
    for (name, bytes) in CSV {
        fs::write(inner.join(name), bytes).unwrap();
    }
    fs::write(nested.path().join("ml-25m/.DS_Store"), fork).unwrap();
    assert!(readers::movielens(nested.path().join("ml-25m")).unwrap() == plain);
    let kept = tempfile::tempdir().unwrap();
    fs::copy(parent.path().join("mac.zip"), kept.path().join("ml-25m.zip")).unwrap();
    assert!(readers::movielens(kept.path()).unwrap() == plain);
}

#[test]
fn movielens_editions() {
    // Written again by another program, with other orders and quotes and a byte order mark.
    let again: &[(&str, &[u8])] = &[
        ("ratings.csv", b"\xef\xbb\xbf\"timestamp\",\"userId\",\"movieId\",\"rating\"\r\n100,1,10,4.0\r\n90,1,30,3.5\r\n80,7,10,0.5\r\n"),
        CSV[1],
    ];
    let same = readers::movielens(folder(again).path()).unwrap().with_name("x");
    assert!(same == readers::movielens(folder(CSV).path()).unwrap().with_name("x"));
    // 10M has half stars.
    let halves: &[(&str, &[u8])] = &[("ratings.dat", b"1::10::3.5::100\n1::30::0.5::90\n"), DAT[1]];
    let data = readers::movielens(folder(halves).path()).unwrap();
    assert_eq!(data.ratings().unwrap(), [3.5, 0.5]);

    // Two generations in one folder.
    let both = folder(&[CSV[0], CSV[1], DAT[0], DAT[1]]);
    let ratings = |file: Option<&str>| {
        let config = MovieLensConfig { ratings: file.map(String::from) };
        Ok::<_, Error>(
            readers::movielens_with(both.path(), &config)?.report().files[0].file.clone(),
        )
    };
    assert_eq!(ratings(None).unwrap(), "ratings.dat");
    assert_eq!(ratings(Some("ratings.csv")).unwrap(), "ratings.csv");
    names(&ratings(Some("ratings")).unwrap_err(), &["ratings", "u.data"]);
    let file = both.path().join("ratings.csv");
    let cause = readers::movielens(file).unwrap_err();
    let cause = std::error::Error::source(&cause).unwrap().to_string();
    assert!(cause.contains("path of the folder"), "{cause}");

    // Ids that pandas converted to numbers.
    let movies: &[u8] = b"movieId,title,genres\n10.0,A,War\n30.0,B,War\n";
    let error = readers::movielens(folder(&[CSV[0], ("movies.csv", movies)]).path()).unwrap_err();
    names(&error, &["none of the 2 item ids", "10, 30", "10.0, 30.0", "`10` and `10.0`"]);
    // Some films without metadata, and metadata without films.
    let movies: &[u8] = b"movieId,title,genres\n10,A,War\n7,C,War\n030,B,War\n";
    let data = readers::movielens(folder(&[CSV[0], ("movies.csv", movies)]).path()).unwrap();
    let report = data.report();
    assert_eq!(note(report, "items_without_metadata"), (1, Some(2), vec!["30".into()]));
    assert_eq!(note(report, "metadata_without_item"), (2, Some(3), vec!["7".into(), "030".into()]));
    assert_eq!(note(report, "ids_nearly_alike").2, ["`30` and `030`"]);
    // Only empty titles.
    let movies: &[u8] = b"movieId,title,genres\n10,,(no genres listed)\n30,,\n";
    let data = readers::movielens(folder(&[CSV[0], ("movies.csv", movies)]).path()).unwrap();
    assert_eq!(note(data.report(), "items_without_text").0, 2);
    assert!(data.items().iter().all(glta_data::Item::is_textless));
}

const META: (&str, &[u8]) = (
    "meta_Pens.jsonl",
    b"{\"parent_asin\": \"B00000000P\", \"title\": \"Pen\"}\n{\"parent_asin\": \"B00000000Q\", \"title\": \"Quill\"}\n",
);

fn amazon(files: &[(&str, &[u8])]) -> Result<Dataset, Error> {
    readers::amazon(folder(files).path(), &AmazonConfig::default())
}

#[test]
fn amazon_2023() {
    // Only `parent_asin`, and a row of a data set without it.
    let reviews: &[u8] = b"{\"user_id\": \"A\", \"parent_asin\": \"B00000000P\", \"rating\": 4.0, \"timestamp\": 1588687728923}\n{\"user_id\": \"B\", \"asin\": \"B00000000Q\", \"rating\": 4.0, \"timestamp\": 1588687728923}\n";
    let json = amazon(&[("Pens.jsonl", reviews), META]).unwrap();
    assert_eq!(json.items()[0].title, "Pen");
    assert_eq!(json.items()[1].title, "Quill");

    // The published 5-core, in one file and in parts.
    let head = "user_id,parent_asin,rating,timestamp,history\n";
    let rows = ["A,B00000000P,4.0,1588687728923,\n", "B,B00000000Q,4.0,1588687728923,X Y\n"];
    let whole = format!("{head}{}{}", rows[0], rows[1]);
    let csv = amazon(&[("Pens.csv.gz", &gzip(whole.as_bytes())), META]).unwrap();
    assert!(csv == json);
    let parts = [format!("{head}{}", rows[0]), format!("{head}{}", rows[1])];
    let split = amazon(&[
        ("Pens.train.csv", parts[0].as_bytes()),
        ("Pens.test.csv", parts[1].as_bytes()),
        META,
    ]);
    assert_eq!(split.unwrap().interactions().len(), 2);

    let none: &[u8] = b"{\"user_id\": \"A\", \"rating\": 4.0}\n";
    names(&amazon(&[("Pens.jsonl", none), META]).unwrap_err(), &["Pens.jsonl, line 1", "item id"]);
}

#[test]
fn amazon_ratings_alone() {
    // 2014: the user first; 2018: the item first.
    for (name, rows) in [
        (
            "ratings_Pens.csv",
            "A2EFCYXHNK06IS,B00000000P,5.0,978480000\nA1WR23ER5HMAA9,B00000000Q,4.0,953424000\n",
        ),
        (
            "Pens.csv",
            "B00000000P,A2EFCYXHNK06IS,5.0,978480000\nB00000000Q,A1WR23ER5HMAA9,4.0,953424000\n",
        ),
    ] {
        let data = amazon(&[(name, rows.as_bytes()), META]).unwrap();
        assert_eq!(data.users(), ["A2EFCYXHNK06IS", "A1WR23ER5HMAA9"], "{name}");
        assert_eq!(data.timestamps(), Some(&[978_480_000, 953_424_000][..]));
        assert_eq!(data.items()[0].title, "Pen");
    }
    let bare = AmazonConfig { metadata: false, ..AmazonConfig::default() };
    let files = folder(&[("Pens.csv", b"user,item\na,b\n")]);
    assert!(readers::amazon(files.path(), &bare).unwrap().items()[0].is_textless());
    let error = readers::amazon(files.path(), &AmazonConfig::default()).unwrap_err();
    names(&error, &["meta_", "--no-metadata"]);
}

#[test]
fn amazon_metadata_of_other_items() {
    let reviews: &[u8] = b"{\"reviewerID\": \"A\", \"asin\": \"01\"}\n{\"reviewerID\": \"B\", \"asin\": \"02\"}\n{\"reviewerID\": \"B\", \"asin\": \"02\"}\n";
    let half: &[u8] = b"{\"asin\": \"01\", \"title\": \"One\"}\n{\"asin\": \"01\", \"title\": \"Again\"}\n{\"asin\": \"09\"}\n";
    let data = amazon(&[("Home.json", reviews), ("meta_Home.json", half)]).unwrap();
    let report = data.report();
    assert_eq!(note(report, "items_without_metadata"), (1, Some(2), vec!["02".into()]));
    assert_eq!(note(report, "repeated_metadata"), (1, Some(3), vec!["01".into()]));
    assert_eq!(note(report, "metadata_without_item"), (1, Some(3), vec!["09".into()]));
    assert_eq!(note(report, "repeated_pairs"), (1, Some(3), vec!["B 02".into()]));
    let other: &[u8] = b"{\"asin\": \"X1\"}\n";
    let error = amazon(&[("Home.json", reviews), ("meta_Home.json", other)]).unwrap_err();
    names(&error, &["none of the 2 item ids", "01, 02", "X1", "same data set"]);
}

const BOOKS: &[u8] =
    b"{\"book_id\": \"1\", \"title\": \"One\"}\n{\"book_id\": \"2\", \"title\": \"Two\"}\n";

fn goodreads(path: &Path, only_read: bool) -> Result<Dataset, Error> {
    readers::goodreads(path, &GoodreadsConfig { only_read, ..GoodreadsConfig::default() })
}

#[test]
fn unread_books_are_counted_and_can_be_kept() {
    let event = |user: &str, book: &str, read: bool| {
        format!("{{\"user_id\": \"{user}\", \"book_id\": \"{book}\", \"is_read\": {read}}}\n")
    };
    let half = event("a", "1", true) + &event("b", "1", false) + &event("b", "2", false);
    let files = folder(&[
        ("goodreads_books.json", BOOKS),
        ("goodreads_interactions_dedup.json", half.as_bytes()),
    ]);
    let data = goodreads(files.path(), true).unwrap();
    assert_eq!(data.interactions().len(), 1);
    let unread = data.report().note("unread").unwrap();
    assert_eq!((unread.count, unread.of), (2, Some(3)));
    assert!(unread.message.contains("--keep-unread"), "{unread}");
    assert_eq!(goodreads(files.path(), false).unwrap().interactions().len(), 3);

    let none = event("a", "1", false) + &event("b", "2", false);
    fs::write(files.path().join("goodreads_interactions_dedup.json"), none).unwrap();
    let error = goodreads(files.path(), true).unwrap_err();
    names(&error, &["2 of 2 interactions", "is_read false", "--keep-unread"]);

    // Two sets, one of which is incomplete.
    let events = event("a", "1", true);
    let files = folder(&[
        ("goodreads_books_poetry.json", BOOKS),
        ("goodreads_interactions_poetry.json", events.as_bytes()),
        ("goodreads_interactions_comics_graphic.json", events.as_bytes()),
    ]);
    let data = goodreads(files.path(), true).unwrap();
    assert_eq!(data.report().files[0].file, "goodreads_interactions_poetry.json");
}

#[test]
fn numbers_of_the_csv_edition_of_goodreads_become_ids() {
    const BOOK_MAP: &[u8] = b"book_id_csv,book_id\n0,1\n1,2\n2,9\n";
    let events: &[u8] =
        b"user_id,book_id,is_read,rating,is_reviewed\n0,1,1,5,0\n0,0,1,4,1\n1,0,0,0,0\n1,1,1,0,0\n";
    let files = folder(&[
        ("goodreads_books.json", BOOKS),
        ("goodreads_interactions.csv", events),
        ("book_id_map.csv", BOOK_MAP),
        ("user_id_map.csv", b"user_id_csv,user_id\n0,8842281e\n1,72fb0d00\n"),
    ]);
    let data = goodreads(files.path(), true).unwrap();
    assert_eq!(data.users(), ["8842281e", "72fb0d00"]);
    let ids: Vec<&str> = data.items().iter().map(|item| item.raw_id.as_str()).collect();
    assert_eq!(ids, ["2", "1"]);
    assert_eq!(data.ratings(), Some(&[5.0, 4.0, 0.0][..]));
    assert!(data.timestamps().is_none() && data.report().note("rows_without_time").is_none());
    assert_eq!(data.report().note("unread").unwrap().count, 1);
    assert_eq!(data.report().files[0].rows, 4);
    // The same rows as JSON.
    let event = |user: &str, book: &str, read: bool, rating: u32| {
        format!(
            "{{\"user_id\": \"{user}\", \"book_id\": \"{book}\", \"is_read\": {read}, \
             \"rating\": {rating}}}\n"
        )
    };
    let json = event("8842281e", "2", true, 5)
        + &event("8842281e", "1", true, 4)
        + &event("72fb0d00", "1", false, 0)
        + &event("72fb0d00", "2", true, 0);
    let same = folder(&[
        ("goodreads_books.json", BOOKS),
        ("goodreads_interactions.json", json.as_bytes()),
    ]);
    let same = goodreads(same.path(), true).unwrap();
    assert!(same == data.with_name(same.name()));

    // Without the map of users they keep their numbers; books need their map.
    fs::remove_file(files.path().join("user_id_map.csv")).unwrap();
    assert_eq!(goodreads(files.path(), true).unwrap().users(), ["0", "1"]);
    let change = |name: &str, text: &[u8]| {
        fs::write(files.path().join(name), text).unwrap();
        goodreads(files.path(), true).unwrap_err()
    };
    let missing = change("book_id_map.csv", b"book_id_csv,book_id\n0,1\n");
    names(&missing, &["interactions.csv, line 2", "book_id_map.csv", "0,1,1,5,0"]);
    let twice = change("book_id_map.csv", b"book_id_csv,book_id\n0,1\n0,2\n");
    names(&twice, &["book_id_map.csv, line 3", "number 0"]);
    let damaged = change("book_id_map.csv", b"book_id_csv,book_id\n9999999999999,1\n");
    names(&damaged, &["book_id_map.csv, line 2"]);
    fs::remove_file(files.path().join("book_id_map.csv")).unwrap();
    names(&goodreads(files.path(), true).unwrap_err(), &["book_id_map.csv", "numbers the books"]);
}
