//! The CSV edition of the Goodreads interactions, which identifies users and books by numbers.

use super::input::{Input, Source};
use super::lines::integer;
use super::table::{Column, Row, Table, TableConfig, number};
use crate::report::FileReport;
use crate::{Error, Result};

/// Name of the file that maps the book numbers of the CSV edition to ids.
const BOOKS: &str = "book_id_map.csv";
const USERS: &str = "user_id_map.csv";

/// An interaction of the CSV edition, with the ids of the JSON edition.
pub(crate) struct Event<'a> {
    pub(crate) user: &'a str,
    pub(crate) book: &'a str,
    pub(crate) is_read: Option<bool>,
    pub(crate) rating: Option<f32>,
}

/// Calls `each` for every row of `file`, and returns the report on the file.
///
/// Returns an error if `book_id_map.csv` is not in the same folder, because the file of the books
/// identifies them by the ids of the JSON edition. Without `user_id_map.csv`, the numbers of the
/// users are their ids.
pub(crate) fn for_each_event(
    source: &Source,
    file: &str,
    mut each: impl FnMut(Event<'_>) -> Result<()>,
) -> Result<FileReport> {
    if !source.has(BOOKS) {
        let hint = format!(
            ": {file} numbers the books, and this file of the same publisher maps the numbers to \
             the ids of the other files"
        );
        return Err(source.missing(BOOKS, &hint));
    }
    let books = source.read(BOOKS, |input| ids(input, "book_id_csv", "book_id"))?;
    let users = if source.has(USERS) {
        Some(source.read(USERS, |input| ids(input, "user_id_csv", "user_id"))?)
    } else {
        tracing::info!("{file}: users keep their numbers, because {USERS} is missing");
        None
    };
    source.read(file, |input| {
        let mut table = Table::new(input, &with_header())?;
        let column = |name: &str| table.column(&Column::Name(name.into()));
        let (user, book) = (column("user_id")?, column("book_id")?);
        let [read, rating] = ["is_read", "rating"].map(|name| column(name).ok());
        while let Some(row) = table.next_row()? {
            let book = id_of(&books, &row, book, BOOKS)?;
            let user = match &users {
                Some(users) => id_of(users, &row, user, USERS)?,
                None => row.text(user)?,
            };
            let is_read = match read.map(|column| row.bytes(column)) {
                None | Some(b"") => None,
                Some(b"1" | b"true" | b"True") => Some(true),
                Some(b"0" | b"false" | b"False") => Some(false),
                Some(_) => return Err(row.expected("`is_read` of 0 or 1")),
            };
            let rating = match rating.map(|column| row.bytes(column)) {
                None | Some(b"") => None,
                Some(field) => Some(number(field).ok_or_else(|| row.expected("a rating"))?),
            };
            each(Event { user, book, is_read, rating }).map_err(|e| row.fault(e))?;
        }
        Ok(table.report("interactions"))
    })
}

/// Ids by number, with `None` for a number that has no id.
type Ids = Vec<Option<Box<str>>>;

/// Returns the id of the number in a row.
fn id_of<'a>(ids: &'a Ids, row: &Row<'_>, column: usize, file: &str) -> Result<&'a str> {
    let number = integer(row.bytes(column)).and_then(|number| usize::try_from(number).ok());
    let id = number.and_then(|number| ids.get(number)?.as_deref());
    id.ok_or_else(|| row.expected(&format!("a number of {file} in column {}", column + 1)))
}

/// Reads a map from the numbers in column `from` to the ids in column `to`.
fn ids(input: Input<'_>, from: &str, to: &str) -> Result<Ids> {
    let mut table = Table::new(input, &with_header())?;
    let column = |name: &str| table.column(&Column::Name(name.into()));
    let (from, to) = (column(from)?, column(to)?);
    let mut ids = Ids::new();
    let mut rows = 0;
    while let Some(row) = table.next_row()? {
        rows += 1;
        // Numbers have few gaps. The limit keeps a corrupt number from filling the memory.
        let at = integer(row.bytes(from)).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|&at| at <= 64 * (rows + 1024));
        let Some(at) = at else {
            return Err(row.expected("a number, counted from 0"));
        };
        if at >= ids.len() {
            ids.resize(at + 1, None);
        }
        let id = Some(row.text(to)?.into());
        if ids[at].as_ref().is_some_and(|_| ids[at] != id) {
            return Err(row.error(format!("number {at} already has another id")));
        }
        ids[at] = id;
    }
    if ids.is_empty() {
        return Err(Error::Empty(table.file().to_owned()));
    }
    Ok(ids)
}

fn with_header() -> TableConfig {
    TableConfig { header: Some(true), ..TableConfig::default() }
}
