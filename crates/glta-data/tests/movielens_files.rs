//! Every MovieLens generation in miniature, from a folder, gzip and zip.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used)]

mod common;

use glta_data::{Dataset, TextConfig, readers};

use common::{CSV, DAT, ML_100K, folder, gzip, zip};

fn check(data: &Dataset) {
    assert_eq!(data.users(), ["1", "7"]);
    let ids: Vec<&str> = data.items().iter().map(|i| &*i.raw_id).collect();
    assert_eq!(ids, ["10", "30"]);
    assert_eq!(data.interactions().items(0), [0, 1]);
    assert_eq!(data.interactions().items(1), [0]);
    assert_eq!(data.timestamps().unwrap(), [100, 90, 80]);
    assert_eq!(data.ratings().unwrap()[0], 4.0);
    assert!(data.items()[1].title.contains("Été"));
}

#[test]
fn folders() {
    for (files, text) in [
        (CSV, "The American President (1995). Comedy, Drama"),
        (DAT, "The American President (1995). Comedy, Drama"),
        (ML_100K, "Heat (1995). Action, Drama"),
    ] {
        let plain = folder(files);
        let data = readers::movielens(plain.path()).unwrap();
        check(&data);
        let texts = data.texts(&TextConfig::default()).unwrap();
        assert_eq!(texts[0], text);

        // Gzipped, with and without `.gz` in the name.
        let zipped: Vec<(String, Vec<u8>)> = files
            .iter()
            .enumerate()
            .map(|(n, (name, bytes))| {
                let name = if n == 0 { format!("{name}.gz") } else { (*name).into() };
                (name, gzip(bytes))
            })
            .collect();
        let zipped: Vec<(&str, &[u8])> = zipped.iter().map(|(n, b)| (&**n, &**b)).collect();
        let same = readers::movielens(folder(&zipped).path()).unwrap();
        assert_eq!(same.with_name("x"), data.with_name("x"));
    }
    let data = readers::movielens(folder(CSV).path()).unwrap();
    assert_eq!(data.items()[1].title, "\"Who\" Été (1990)");
    assert!(data.items()[1].genres.is_empty());
    assert_eq!(data.ratings().unwrap(), [4.0, 3.5, 0.5]);
}

#[test]
fn archives() {
    let parent = tempfile::tempdir().unwrap();
    for (files, name, expected) in
        [(CSV, "ml-25m", "ml-25m"), (DAT, "ml-1m", "ml-1m"), (ML_100K, "ml-100k", "ml-100k")]
    {
        let data = readers::movielens(zip(parent.path(), name, files)).unwrap();
        check(&data);
        assert_eq!(data.name(), expected);
    }
}

#[test]
fn pairs_without_ratings() {
    let files: &[(&str, &[u8])] = &[
        ("pairs.dat", b"1::10\n1::30\n7::10\n"),
        DAT[1],
        ("dbpedia_abstracts.json", br#"{"10": "A comedy.", "99": "x"}"#),
    ];
    let data = readers::movielens(folder(files).path()).unwrap();
    assert_eq!(data.interactions().len(), 3);
    assert!(data.ratings().is_none() && data.timestamps().is_none());
    assert_eq!(data.items()[0].other["abstract"], "A comedy.");
    assert!(data.items()[1].other.is_empty());
}

#[test]
fn repeats_and_missing_metadata() {
    let files: &[(&str, &[u8])] = &[
        ("ratings.dat", b"1::10::4::100\n1::10::2::90\n1::50::3::90\n"),
        ("movies.dat", b"10::First::War\n10::Second::War\n"),
    ];
    let data = readers::movielens(folder(files).path()).unwrap();
    assert_eq!(data.interactions().len(), 2);
    assert_eq!(data.ratings().unwrap(), [4.0, 3.0]);
    assert_eq!(data.items()[0].title, "First");
    assert!(data.items()[1].is_textless());
}
