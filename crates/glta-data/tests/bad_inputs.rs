//! Broken files give an error with the file, the line and the problem.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use glta_data::readers::{
    self, AmazonConfig, Column, GoodreadsConfig, PairsConfig, PairsLayout, TableConfig,
};

use common::{CSV, DAT, ML_100K, folder, gzip, zip};

/// Returns the error of reading a MovieLens folder in which some files are replaced.
fn movielens(files: &[(&str, &[u8])], changed: &[(&str, &[u8])]) -> String {
    let folder = folder(files);
    for (name, bytes) in changed {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    readers::movielens(folder.path()).unwrap_err().to_string()
}

#[track_caller]
fn names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

#[test]
fn bad_lines() {
    let bad: &[(&str, &[&str])] = &[
        // Wrong separator.
        (
            "userId,movieId,rating,timestamp\n1,10,4.0,100\n1\t30\t3\t90\n",
            &["ratings.csv, line 3", "`userId,movieId,rating,timestamp`", "1\\t30\\t3\\t90"],
        ),
        ("1::10::4::100\n", &["ratings.csv, line 1", "header", "1::10::4::100"]),
        // A missing column, a word instead of a number.
        ("userId,movieId,rating,timestamp\n1,10,4.0\n", &["line 2"]),
        ("userId,movieId,rating,timestamp\n1,10,good,5\n", &["line 2"]),
        ("userId,movieId,rating,timestamp\n1,10,4,noon\n", &["line 2"]),
        ("userId,movieId,rating,timestamp\n1,10,NaN,5\n", &["line 2"]),
        // Invalid ids.
        ("userId,movieId,rating,timestamp\n1,-10,4.0,5\n", &["line 2", "integer ids"]),
        (
            "userId,movieId,rating,timestamp\n99999999999999999999999,1,4.0,5\n",
            &["line 2", "integer ids"],
        ),
        ("userId,movieId,rating,timestamp\n4294967296,1,4.0,5\n", &["line 2"]),
        ("userId,movieId,rating,timestamp\n,1,4.0,5\n", &["line 2"]),
        // No content.
        ("", &["ratings.csv has no interactions"]),
        ("userId,movieId,rating,timestamp\n", &["ratings.csv has no interactions"]),
    ];
    for (text, parts) in bad {
        let error = movielens(CSV, &[("ratings.csv", text.as_bytes())]);
        names(&error, parts);
    }
    let error =
        movielens(CSV, &[("ratings.csv", b"userId,movieId,rating,timestamp\n\xff\xfe,1,4,5\n")]);
    names(&error, &["ratings.csv, line 2"]);
    names(&movielens(DAT, &[("ratings.dat", b"1:10:4:100\n")]), &["ratings.dat, line 1", "::"]);
    names(
        &movielens(ML_100K, &[("u.data", b"1 10 4 100\n")]),
        &["u.data, line 1", "tab-separated"],
    );
}

#[test]
fn bad_metadata() {
    names(&movielens(DAT, &[("movies.dat", b"10::Heat\n")]), &["movies.dat, line 1"]);
    names(&movielens(ML_100K, &[("u.item", b"10|Heat\n")]), &["u.item, line 1", "3 genre flags"]);
    names(&movielens(ML_100K, &[("u.genre", b"Action|5\n")]), &["u.genre, line 1"]);
    names(&movielens(CSV, &[("movies.csv", b"id,name\n")]), &["movies.csv, line 1", "header"]);
    names(
        &movielens(CSV, &[("movies.csv", b"movieId,title,genres\n1,x,y\n2,x\n")]),
        &["movies.csv, line 3"],
    );
    names(
        &movielens(CSV, &[("movies.csv", b"movieId,title,genres\n1,\xe9t\xe9,y\n")]),
        &["movies.csv, line 2", "UTF-8"],
    );
    let error = movielens(DAT, &[("dbpedia_abstracts.json", b"{\n\"1\": 5}")]);
    names(&error, &["dbpedia_abstracts.json, line 2"]);
}

#[test]
fn missing_files() {
    for (files, missing) in [
        (&CSV[..1], "movies.csv"),
        (&DAT[..1], "movies.dat"),
        (&ML_100K[..1], "u.genre"),
        (&ML_100K[..2], "u.item"),
        (&CSV[1..], "ratings"),
    ] {
        let folder = folder(files);
        let error = readers::movielens(folder.path()).unwrap_err().to_string();
        names(&error, &[missing, &folder.path().display().to_string()]);
    }
    let nowhere = Path::new("/no/such/folder");
    names(&readers::movielens(nowhere).unwrap_err().to_string(), &["/no/such/folder"]);
    let file = folder(&[("ratings.csv", b"x")]);
    let path = file.path().join("ratings.csv");
    let error = readers::movielens(path).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    names(&format!("{error}: {cause}"), &["ratings.csv", "neither a folder nor"]);
}

#[test]
fn truncated_archives() {
    let parent = tempfile::tempdir().unwrap();
    let mut ratings = b"userId,movieId,rating,timestamp\n".to_vec();
    for n in 0..20_000u32 {
        ratings.extend(format!("{},{},3.5,{}\n", n / 50, n % 997, n * 31 % 1009).bytes());
    }
    let files = [("ratings.csv", &*ratings), CSV[1]];
    let path = zip(parent.path(), "ml-x", &files);
    assert!(readers::movielens(&path).is_ok());
    let whole = fs::read(&path).unwrap();
    for part in [0, 3, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..part]).unwrap();
        names(&readers::movielens(&path).unwrap_err().to_string(), &["ml-x.zip"]);
    }
    // Damage inside the file, detected by the checksum or the stream.
    let mut damaged = whole.clone();
    let at = whole.len() / 2;
    damaged[at..at + 16].fill(0xaa);
    fs::write(&path, damaged).unwrap();
    names(&readers::movielens(&path).unwrap_err().to_string(), &["ml-x.zip/ml-x/ratings.csv"]);

    let gz = gzip(&ratings);
    for part in [gz.len() / 3, gz.len() - 1] {
        let cut = folder(&[("ratings.csv.gz", &gz[..part]), CSV[1]]);
        let error = readers::movielens(cut.path()).unwrap_err().to_string();
        names(&error, &["cannot read", "ratings.csv.gz"]);
    }
}

#[test]
fn pair_files() {
    let read = |bytes: &[u8], config: &PairsConfig| {
        let folder = folder(&[("p.txt", bytes)]);
        readers::pairs(folder.path().join("p.txt"), config)
    };
    let pairs = PairsConfig::default();
    for (bytes, separator) in [
        (&b"1::2\n3::4\n1::2\n"[..], "::"),
        (b"1\t2\n3\t4", "tab"),
        (b"1, 2\r\n3, 4\r\n", "comma"),
        (b"a 2\n\nb   4 \n", "blank"),
        (b"\xef\xbb\xbf1;2\n3;4;\n", "semicolon"),
    ] {
        let data = read(bytes, &pairs).unwrap();
        let counts = (data.n_users(), data.n_items(), data.interactions().len());
        assert_eq!(counts, (2, 2, 2), "{separator}");
        assert_eq!(data.name(), "p");
    }
    let rated = PairsConfig {
        table: TableConfig { header: Some(true), ..TableConfig::default() },
        rating: Some(Column::Number(3)),
        time: Some(Column::Name("t".into())),
        ..pairs.clone()
    };
    let data = read(b"u,i,r,t\n1,2,4.5,99\n", &rated).unwrap();
    assert_eq!(data.ratings().unwrap(), [4.5]);
    assert_eq!(data.timestamps().unwrap(), [99]);
    let lists = PairsConfig::of(PairsLayout::Lists);
    let data = read(b"0 1 2 3\n1\n2 1\n", &lists).unwrap();
    assert_eq!(data.interactions().len(), 4);

    let fails = |bytes: &[u8], config: &PairsConfig| read(bytes, config).unwrap_err().to_string();
    names(&fails(b"1\t2\n5\t6\n3 4\n", &pairs), &["p.txt, line 3", "tab-separated"]);
    names(&fails(b"1,2\n5,6\n3\n", &pairs), &["p.txt, line 3", "comma-separated"]);
    names(&fails(b"1,2\n\xff,3\n", &pairs), &["p.txt, line 2", "not UTF-8"]);
    names(&fails(b"", &pairs), &["has no interactions"]);
    names(&fails(b"u,i,r,t\n1,2,x,99\n", &rated), &["p.txt, line 2", "number", "column 3"]);
    names(&fails(b"u,i,r,t\n1,2,3\n", &rated), &["p.txt, line 2"]);
    assert!(read(b"1 2\n", &PairsConfig { rating: Some(Column::Number(3)), ..lists }).is_err());
    assert!(readers::pairs("/no/such/file", &pairs).is_err());
}

#[test]
fn split_files_share_ids() {
    let folder = folder(&[("train.txt", b"5 1 2\n6 3\n"), ("test.txt", b"6 1\n5 2 9\n")]);
    let lists = PairsConfig::of(PairsLayout::Lists);
    let path = |name| folder.path().join(name);
    let (data, split) =
        readers::split_pairs("s", path("train.txt"), path("test.txt"), &lists).unwrap();
    assert_eq!(data.users(), ["5", "6"]);
    assert_eq!(data.interactions().len(), 5);
    assert_eq!(split.train.items(0), [0, 1]);
    // Item 2 of user 5 is already in the training part.
    assert_eq!(split.test.items(0), [3]);
    assert_eq!(split.test.items(1), [0]);
    assert!(split.valid.is_empty());
}

const BOOKS: (&str, &[u8]) = (
    "goodreads_books.json",
    br#"{"book_id": "1", "title": "A &amp; B", "description": "x<br />y", "popular_shelves": [{"count": "20", "name": "to-read"}, {"count": "12", "name": "history"}]}
{"book_id": 2, "title": null}
{"book_id": "1", "title": "again"}
"#,
);

#[test]
fn goodreads_records() {
    let events: &[u8] = br#"{"user_id": "a", "book_id": "1", "is_read": true, "rating": 4, "date_added": "Fri Apr 19 08:15:15 -0700 2013"}
{"user_id": "a", "book_id": "2", "is_read": false, "rating": 0, "date_added": "Fri Apr 19 08:15:16 -0700 2013"}
{"user_id": "b", "book_id": "2", "is_read": true, "rating": 5, "date_added": "Fri Apr 19 08:15:17 -0700 2013"}
{"user_id": "b", "book_id": "3", "is_read": true, "rating": 5, "date_added": "Fri Apr 19 08:15:18 -0700 2013"}
"#;
    let both = folder(&[BOOKS, ("goodreads_interactions.json.gz", &gzip(events))]);
    let config = GoodreadsConfig::default();
    let data = readers::goodreads(both.path(), &config).unwrap();
    assert_eq!((data.n_users(), data.n_items(), data.interactions().len()), (2, 3, 3));
    assert_eq!(data.items()[0].title, "A & B");
    assert_eq!(data.items()[0].description, "x y");
    assert_eq!(data.items()[0].other["shelves"], "history");
    assert!(data.items()[1].is_textless() && data.items()[2].is_textless());
    assert_eq!(data.timestamps().unwrap()[0], 1_366_384_515);
    let all = GoodreadsConfig { only_read: false, ..config.clone() };
    assert_eq!(readers::goodreads(both.path(), &all).unwrap().interactions().len(), 4);
    let history = |min_shelf_count| GoodreadsConfig {
        genre: Some("history".into()),
        min_shelf_count,
        ..config.clone()
    };
    let data = readers::goodreads(both.path(), &history(10)).unwrap();
    assert_eq!((data.n_items(), data.interactions().len()), (1, 1));
    let error = readers::goodreads(both.path(), &history(13)).unwrap_err().to_string();
    names(&error, &["genre", "history"]);

    // With the genres file, its names are used.
    let genres = br#"{"book_id": "2", "genres": {"fiction": 3, "history, biography": 9}}
{"book_id": "1", "genres": {}}
"#;
    fs::write(both.path().join("goodreads_book_genres_initial.json"), genres).unwrap();
    let data = readers::goodreads(both.path(), &history(10)).unwrap();
    assert_eq!(data.items()[0].raw_id, "2");
    assert_eq!(data.items()[0].genres, ["history, biography", "fiction"]);

    let fails = |files: &[(&str, &[u8])]| {
        readers::goodreads(folder(files).path(), &config).unwrap_err().to_string()
    };
    names(&fails(&[BOOKS]), &["goodreads_reviews"]);
    names(&fails(&[("goodreads_interactions.json", events)]), &["goodreads_books"]);
    let broken: &[u8] = b"{\"user_id\": \"a\", \"book_id\": \"1\"}\n{\"user_id\": \"a\"\n";
    names(
        &fails(&[BOOKS, ("goodreads_interactions.json", broken)]),
        &["interactions.json, line 2"],
    );
    names(
        &fails(&[BOOKS, ("goodreads_interactions.json", b"{\"user_id\": \"a\"}\n")]),
        &["line 1", "book_id"],
    );
    names(&fails(&[BOOKS, ("goodreads_interactions.json", b"")]), &["has no interactions"]);
    let several = fails(&[
        ("goodreads_books_comics.json", BOOKS.1),
        ("goodreads_books_poetry.json", BOOKS.1),
        ("goodreads_interactions_comics.json", events),
        ("goodreads_interactions_poetry.json", events),
    ]);
    names(&several, &["subset", "goodreads_books_comics.json, goodreads_books_poetry.json"]);
}

#[test]
fn amazon_generations() {
    let config = AmazonConfig::default();
    // 2014: Python dicts.
    let reviews: &[u8] =
        br#"{"reviewerID": "A", "asin": "01", "overall": 5.0, "unixReviewTime": 10}
{"reviewerID": "A", "asin": "01", "overall": 2.0, "unixReviewTime": 20}
{"reviewerID": "B", "asin": "1", "overall": 1.0, "unixReviewTime": 30}
"#;
    let meta: &[u8] = br#"{'asin': '01', 'title': 'Dad\'s &quot;Mug&quot;', 'price': 3.5, 'categories': [['Home', 'Kitchen'], ['Home']], 'related': {'also_bought': ['1']}, 'description': "It's <b>big</b>"}
{'asin': '1', 'salesRank': {'Toys': 3}}
"#;
    let old = folder(&[("reviews_Home_5.json.gz", &gzip(reviews)), ("meta_Home.json", meta)]);
    let data = readers::amazon(old.path(), &config).unwrap();
    assert_eq!(data.name(), "reviews_Home_5");
    assert_eq!((data.n_users(), data.n_items(), data.interactions().len()), (2, 2, 2));
    assert_eq!(data.ratings().unwrap(), [2.0, 1.0]);
    let mug = &data.items()[0];
    assert_eq!((&*mug.title, &*mug.description), ("Dad's \"Mug\"", "It's big"));
    assert_eq!(mug.genres, ["Home", "Kitchen"]);

    // 2018.
    let meta: &[u8] = br#"{"asin": "01", "title": "var aPageStart = (new Date()).getTime();", "description": ["One", "", "Two &amp; three"], "category": [], "brand": "Acme", "feature": ["a", "b"]}
"#;
    let recent = folder(&[("Home.json", reviews), ("meta_Home.json", meta)]);
    let data = readers::amazon(recent.path(), &config).unwrap();
    let item = &data.items()[0];
    assert_eq!((&*item.title, &*item.description), ("", "One Two & three"));
    assert_eq!((&*item.other["brand"], &*item.other["features"]), ("Acme", "a; b"));

    // 2023.
    let reviews_2023: &[u8] = br#"{"user_id": "A", "asin": "X1", "parent_asin": "X", "rating": 4.0, "timestamp": 1588687728923, "title": "t", "text": "t"}
"#;
    let meta: &[u8] = br#"{"parent_asin": "X", "title": "Pen", "description": [], "features": ["blue"], "categories": ["Office"], "store": "Acme", "details": {"a": "b"}}
"#;
    let new = folder(&[("Office.jsonl", reviews_2023), ("meta_Office.jsonl", meta)]);
    let data = readers::amazon(new.path(), &config).unwrap();
    assert_eq!(data.timestamps().unwrap(), [1_588_687_728]);
    assert_eq!(data.items()[0].raw_id, "X");
    assert_eq!(data.items()[0].other["brand"], "Acme");

    // Several categories, and several files of one.
    fs::write(recent.path().join("Home_5.json"), reviews).unwrap();
    let all = readers::amazon(recent.path(), &config).unwrap();
    assert_eq!(all.report().files[0].file, "Home.json");
    let chosen = AmazonConfig { reviews: Some("Home_5.json".into()), ..config.clone() };
    assert!(readers::amazon(recent.path(), &chosen).is_ok());
    fs::write(recent.path().join("meta_Office.json"), meta).unwrap();
    assert!(readers::amazon(recent.path(), &chosen).is_ok());
    let error = readers::amazon(recent.path(), &config).unwrap_err().to_string();
    names(&error, &["category", "meta_Home.json, meta_Office.json"]);
    let chosen = AmazonConfig { category: Some("Home".into()), ..chosen };
    assert!(readers::amazon(recent.path(), &chosen).is_ok());

    let fails = |files: &[(&str, &[u8])]| {
        readers::amazon(folder(files).path(), &config).unwrap_err().to_string()
    };
    names(&fails(&[("Home.json", reviews)]), &["meta_"]);
    names(&fails(&[("meta_Home.json", meta)]), &["reviews"]);
    names(&fails(&[("Home.json", b"{'a': }\n"), ("meta_Home.json", meta)]), &["Home.json, line 1"]);
    names(&fails(&[("Home.json", b"[1]\n"), ("meta_Home.json", meta)]), &["Home.json, line 1"]);
    names(
        &fails(&[("Home.json", reviews), ("meta_Home.json", b"{\"asin\": \"01\"}\n{\"asin\": \n")]),
        &["meta_Home.json, line 2"],
    );
    let cut = &gzip(reviews)[..40];
    names(&fails(&[("Home.json.gz", cut), ("meta_Home.json", meta)]), &["Home.json.gz"]);
}

#[test]
fn ihp_files() {
    let train = ("user_history_train.json", &b"{\"1\": [5, 6], \"0\": [5]}"[..]);
    let good = folder(&[train, ("user_history_test.json", b"{\"0\": [6], \"2\": []}")]);
    let (data, split) = readers::ihp(good.path()).unwrap();
    assert_eq!(data.users(), ["1", "0"]);
    assert_eq!((split.train.len(), split.test.len()), (3, 1));
    for (bad, parts) in [
        (&b"{\"0\": [6]"[..], &["user_history_test.json, line 1"][..]),
        (b"[1]", &["line 1", "object"]),
        (b"{\"0\": [1.5]}", &["line 1", "id"]),
        (b"{}", &["no interactions"]),
        (b"{\"0\": [6, \"nan\"]}", &["user_history_test.json", "item id is missing", "user `0`"]),
    ] {
        let folder = folder(&[train, ("user_history_test.json", bad)]);
        names(&readers::ihp(folder.path()).unwrap_err().to_string(), parts);
    }
    let error = readers::ihp(folder(&[train]).path()).unwrap_err().to_string();
    names(&error, &["user_history_test.json"]);
}
