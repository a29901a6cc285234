use std::path::Path;

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::goodreads_csv::{Event, for_each_event};
use super::html::clean;
use super::input::Source;
use super::json::{Entries, RawId, for_each_record};
use crate::dataset::Collector;
use crate::report::{FileReport, Note};
use crate::{Dataset, Error, Item, Result};

/// Settings that select a part of the Goodreads data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GoodreadsConfig {
    /// Name of the genre in the file names, such as `poetry`. It is needed if a folder has the
    /// files of several genres. Default none.
    pub subset: Option<String>,
    /// Genre of the books to keep. If `goodreads_book_genres_initial.json` exists, a genre is one
    /// of the names in that file (`history` in `history, historical fiction, biography`).
    /// Otherwise, it is the name of a shelf. Default none.
    pub genre: Option<String>,
    /// Minimum number of readers who put a book on the shelf that `genre` names. It applies only if
    /// there is no file of genres. Default 10.
    pub min_shelf_count: u32,
    /// Whether interactions with books that a user only put on a shelf (`is_read` false) are
    /// omitted. They are about half of the published interactions. Default true.
    pub only_read: bool,
}

impl Default for GoodreadsConfig {
    fn default() -> Self {
        Self { subset: None, genre: None, min_shelf_count: 10, only_read: true }
    }
}

/// Reads the UCSD Book Graph (Wan & McAuley) in the publishers' format. A folder contains the
/// JSON-lines files `goodreads_books*.json` and `goodreads_interactions*.json` (or else
/// `goodreads_reviews*.json`), for all books or one genre, plain or gzipped. Interactions may also
/// be the publishers' `goodreads_interactions.csv`. This file numbers books differently, so it
/// needs `book_id_map.csv`. Without `user_id_map.csv`, the numbers of the users are their raw ids.
///
/// Only the ids are mandatory in a record. Items have `title`, `description` and, if known, genres
/// and a text `shelves`, without markup and with decoded entities. A rating of 0 counts as no
/// rating. The time of an interaction is the time at which the user put the book on a shelf.
///
/// # Errors
/// Returns an error if a file is missing, several files match, or a line is invalid.
pub fn goodreads(path: impl AsRef<Path>, config: &GoodreadsConfig) -> Result<Dataset> {
    let source = Source::open(path.as_ref())?;
    let (books, events) = files(&source, config)?;
    let wanted = match &config.genre {
        Some(genre) => Some(books_of(&source, &books, genre, config.min_shelf_count)?),
        None => None,
    };
    let (mut unread, mut of_other_genres) = (0, 0);
    let mut collector = Collector::new(true, !events.ends_with(CSV));
    let mut take = |event: Event<'_>, dates: [Option<String>; 2]| {
        if wanted.as_ref().is_some_and(|w| !w.contains(event.book)) {
            of_other_genres += 1;
            return Ok(());
        }
        if config.only_read && event.is_read == Some(false) {
            unread += 1;
            return Ok(());
        }
        let time = dates.into_iter().flatten().find_map(|date| seconds(&date));
        collector.push(event.user, event.book, event.rating, time)
    };
    let file = if events.ends_with(CSV) {
        for_each_event(&source, &events, |event| take(event, [None, None]))?
    } else {
        let rows = source.read(&events, |input| {
            for_each_record(input, |event: Interaction| {
                let Interaction { is_read, rating, date_added, date_updated, .. } = event;
                let (user, book) = (&*event.user_id.0, &*event.book_id.0);
                take(Event { user, book, is_read, rating }, [date_added, date_updated])
            })
        })?;
        FileReport { file: events.clone(), layout: "interactions, JSON lines".into(), rows }
    };
    let rows = file.rows;
    tracing::info!("{events}: read as {}, {rows} records", file.layout);
    collector.report.files.push(file);
    let none_left = collector.is_empty();
    if of_other_genres > 0 {
        let text = "interactions are with books of other genres; they are left out";
        collector.report.say(&events, Note::new("other_genres", of_other_genres, Some(rows), text));
    }
    if unread > 0 {
        let text = "interactions are with unread books (is_read false, only put on a shelf); they \
                    are left out (--keep-unread keeps them)";
        let note = Note::new("unread", unread, Some(rows), text);
        if none_left {
            return Err(Error::Emptied { dataset: events, rule: note.message });
        }
        collector.report.warn(&events, note);
    }
    if none_left && rows > 0 {
        let rule = format!("none of {rows} interactions is with a book of the genre");
        return Err(Error::Emptied { dataset: events, rule });
    }
    if none_left {
        return Err(Error::Empty(format!("{}/{events}", source.path().display())));
    }
    let mut catalogue = Catalogue::new(collector);
    let rows = source.read(&books, |input| {
        for_each_record(input, |book: Book| catalogue.add(&book.book_id.0, || book.item()))
    })?;
    let layout = "books, JSON lines".into();
    catalogue.read(FileReport { file: books, layout, rows });
    if source.has(GENRES) {
        source.read(GENRES, |input| {
            for_each_record(input, |mut book: BookGenres| {
                book.genres.0.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                catalogue.update(&book.book_id.0, |item| {
                    item.genres = book.genres.0.into_iter().map(|(name, _)| name).collect();
                });
                Ok(())
            })
        })?;
    }
    catalogue.finish(source.stem())
}

const GENRES: &str = "goodreads_book_genres_initial.json";

#[derive(Deserialize)]
struct Interaction {
    user_id: RawId,
    book_id: RawId,
    is_read: Option<bool>,
    rating: Option<f32>,
    date_added: Option<String>,
    date_updated: Option<String>,
}

#[derive(Deserialize)]
struct Book {
    book_id: RawId,
    title: Option<String>,
    description: Option<String>,
    #[serde(default)]
    popular_shelves: Vec<Shelf>,
}

#[derive(Deserialize)]
struct Shelf {
    name: String,
    /// Number of readers, which the file contains as a string.
    count: RawId,
}

#[derive(Deserialize)]
struct BookGenres {
    book_id: RawId,
    genres: Entries<u64>,
}

impl Shelf {
    fn count(&self) -> u32 {
        self.count.0.parse().unwrap_or(0)
    }
}

/// Names of shelves that describe the reader's plans rather than the book.
const STATUS: &[&str] = &[
    "to-read",
    "currently-reading",
    "owned",
    "books-i-own",
    "favorites",
    "default",
    "to-buy",
    "wish-list",
    "library",
    "my-books",
    "my-library",
    "read",
];

impl Book {
    fn item(&self) -> Item {
        let mut item =
            Item::titled(self.book_id.0.clone(), clean(self.title.as_deref().unwrap_or_default()));
        item.description = clean(self.description.as_deref().unwrap_or_default());
        let shelves: Vec<&str> = self
            .popular_shelves
            .iter()
            .map(|shelf| shelf.name.as_str())
            .filter(|name| !STATUS.contains(name))
            .take(10)
            .collect();
        if !shelves.is_empty() {
            item.other.insert("shelves".into(), shelves.join(", "));
        }
        item
    }
}

/// Returns the ids of the books of a genre.
fn books_of(
    source: &Source,
    books: &str,
    genre: &str,
    min_shelf_count: u32,
) -> Result<FxHashSet<String>> {
    let mut wanted = FxHashSet::default();
    if source.has(GENRES) {
        source.read(GENRES, |input| {
            for_each_record(input, |book: BookGenres| {
                let mut names = book.genres.0.iter().flat_map(|(names, _)| names.split(", "));
                if names.any(|name| name == genre) {
                    wanted.insert(book.book_id.0);
                }
                Ok(())
            })
        })?;
    } else {
        source.read(books, |input| {
            for_each_record(input, |book: Book| {
                let mut shelves = book.popular_shelves.iter();
                if shelves.any(|s| s.name == genre && s.count() >= min_shelf_count) {
                    wanted.insert(book.book_id.0);
                }
                Ok(())
            })
        })?;
    }
    if wanted.is_empty() {
        return Err(Error::Config {
            field: "genre",
            problem: format!("no book has the genre `{genre}`"),
        });
    }
    Ok(wanted)
}

/// Returns the names of the file of books and of the file of interactions, or of reviews if there
/// are no interactions.
fn files(source: &Source, config: &GoodreadsConfig) -> Result<(String, String)> {
    let subset = config.subset.as_deref().unwrap_or_default();
    let of_kind = |kind: &str, ending: &str| {
        let plain = source.file_names().map(|name| name.strip_suffix(".gz").unwrap_or(name));
        let mut names: Vec<String> = plain
            .filter(|name| {
                name.starts_with(kind) && name.contains(subset) && name.ends_with(ending)
            })
            .map(String::from)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let books = of_kind(BOOKS, JSON);
    let kinds = [(INTERACTIONS, JSON), (INTERACTIONS, CSV), (REVIEWS, JSON)];
    let mut there = kinds.map(|(kind, ending)| (kind, of_kind(kind, ending))).into_iter();
    let (kind, events) = there.find(|(_, files)| !files.is_empty()).unwrap_or_default();
    if books.is_empty() {
        return Err(source.missing(&format!("{BOOKS}*.json"), ""));
    }
    if events.is_empty() {
        return Err(source.missing(
            &format!("{INTERACTIONS}*.json, {INTERACTIONS}*.csv or {REVIEWS}*.json"),
            "",
        ));
    }
    // Files of one subset have the same suffix.
    let end = |name: &str, kind: &str| {
        name[kind.len()..].trim_end_matches(JSON).trim_end_matches(CSV).to_owned()
    };
    let whole = |end: &str| if end == "_dedup" { String::new() } else { end.to_owned() };
    let mut pairs = Vec::new();
    for book in &books {
        for event in &events {
            if whole(&end(book, BOOKS)) == whole(&end(event, kind)) {
                pairs.push((book.clone(), event.clone()));
            }
        }
    }
    match (books.as_slice(), events.as_slice(), pairs.as_slice()) {
        ([book], [event], _) => Ok((book.clone(), event.clone())),
        (_, _, [(book, event)]) => {
            tracing::info!(
                "{book} and {event} of {}; --subset NAME chooses others",
                [books.as_slice(), &events].concat().join(", ")
            );
            Ok((book.clone(), event.clone()))
        }
        _ => Err(Error::Config {
            field: "subset",
            problem: format!(
                "{} has several sets; choose one of {}, for example by --subset NAME",
                source.path().display(),
                [books.as_slice(), &events].concat().join(", ")
            ),
        }),
    }
}

const JSON: &str = ".json";
const CSV: &str = ".csv";
const BOOKS: &str = "goodreads_books";
const INTERACTIONS: &str = "goodreads_interactions";
const REVIEWS: &str = "goodreads_reviews";

/// Returns the seconds since 1970 of a date such as `Fri Apr 19 08:15:15 -0700 2013`.
fn seconds(date: &str) -> Option<i64> {
    let parsed = jiff::fmt::strtime::parse("%a %b %d %H:%M:%S %z %Y", date).ok()?;
    Some(parsed.to_timestamp().ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(seconds("Thu Jan 01 00:00:10 -0000 1970"), Some(10));
        assert_eq!(seconds("Fri Apr 19 08:15:15 -0700 2013"), Some(1_366_384_515));
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("2013-04-19"), None);
    }
}
