use std::path::Path;

use glta_data::Item;

use super::store::{Added, Event, Journal, path_for};
use crate::Error;

fn event(user: &str, item: &str, time: Option<i64>, id: Option<&str>) -> Event {
    Event { user: user.into(), item: item.into(), time, id: id.map(str::to_owned) }
}

#[test]
fn an_interaction_is_stored_once_by_its_id_or_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path).unwrap();
    let mut add = |event: Event| journal.commit(|rows| rows.add(&event)).unwrap();
    assert_eq!(add(event("ann", "tea", Some(5), Some("a"))), Added::New);
    assert_eq!(add(event("ann", "tea", Some(5), Some("a"))), Added::Known);
    assert_eq!(add(event("ann", "tea", None, Some("a"))), Added::Taken);
    assert_eq!(add(event("ann", "tea", Some(5), Some("b"))), Added::New);
    assert_eq!(add(event("ann", "tea", Some(5), None)), Added::New);
    assert_eq!(add(event("ann", "tea", Some(5), None)), Added::Known);
    assert_eq!(add(event("ann", "tea", None, None)), Added::New);
    // These ids and pairs look like those of others.
    assert_eq!(add(event("a\", \"b", "c", None, None)), Added::New);
    assert_eq!(add(event("a", "b\", \"c", None, None)), Added::New);
    // A reader sees committed data while the writer is open.
    let read = Journal::read(&path).unwrap().interactions().unwrap();
    assert_eq!(read.len(), 6);
    assert_eq!(read[0], event("ann", "tea", Some(5), Some("a")));
    assert!(read[3].time.unwrap() > 1_700_000_000);
}

#[test]
fn a_failed_transaction_is_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path).unwrap();
    let failed = journal.commit(|rows| {
        rows.put(&Item::titled("tea", "Tea"))?;
        rows.add(&event("ann", "tea", None, None))?;
        Err::<(), _>(rusqlite::Error::QueryReturnedNoRows)
    });
    assert!(matches!(failed, Err(Error::Journal { .. })));
    journal
        .commit(|rows| {
            rows.whole(|rows| rows.add(&event("eve", "tea", None, None)).map(|_| false))?;
            rows.put(&Item::titled("mug", "Mug"))
        })
        .unwrap();
    assert!(journal.interactions().unwrap().is_empty());
    assert_eq!(journal.items().unwrap().into_keys().collect::<Vec<_>>(), ["mug"]);
}

#[test]
fn the_default_journal_is_next_to_the_folder_or_link() {
    assert_eq!(path_for(Path::new("/runs/shop")).unwrap(), Path::new("/runs/shop.journal.sqlite"));
    assert_eq!(path_for(Path::new("/runs/shop/")).unwrap(), Path::new("/runs/shop.journal.sqlite"));
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model/..");
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let beside = path_for(&inside).unwrap();
    assert_eq!(beside.parent(), folder.path().canonicalize().unwrap().parent());
}

#[test]
fn other_versions_and_other_files_are_rejected_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    drop(Journal::open(&path).unwrap());
    let problem = |result: crate::Result<Journal>| match result.err() {
        Some(Error::Journal { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let other = rusqlite::Connection::open(&path).unwrap();
    other.pragma_update(None, "user_version", 7).unwrap();
    drop(other);
    assert!(problem(Journal::open(&path)).contains("version 7"));
    assert!(problem(Journal::read(&path)).contains("version 7"));
    let strange = folder.path().join("strange");
    rusqlite::Connection::open(&strange).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    assert!(problem(Journal::open(&strange)).contains("not the journal"));
    assert!(Journal::read(folder.path().join("missing")).is_err());
}
