//! Tables of any kind: exports of programs, and the publishers' CSV editions.

mod form;
mod names;
mod quotes;
mod records;
mod sniff;
mod values;

pub use form::Separator;
pub use names::Column;
pub(crate) use names::{DESCRIPTION, GENRES, ITEM, RATING, TIME, TITLE, USER, find, typed};
pub(crate) use values::{bare_date, number, time};

use std::fmt;
use std::io::{Cursor, Read};
use std::path::Path;

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::input::{Input, io_error, open_file};
use super::lines::{Fault, expected, shown};
use crate::report::FileReport;
use crate::{Error, Result};
use form::Rows;
use records::Records;
use sniff::Sample;

/// The format of a table. Fields that are `None` are recognised from the content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// Whether the first row has the names of the columns.
    pub header: Option<bool>,
    /// The separator between two fields.
    pub separator: Option<Separator>,
    /// Whether `"` around a field is a quote (RFC 4180) instead of a part of the text.
    pub quotes: Option<bool>,
}

/// A table that is read row by row: CSV and similar formats, fields separated by spaces or `::`,
/// RecBole's `.inter` and `.item`, or JSON lines; plain or gzipped, UTF-8 or UTF-16.
///
/// Comments (`#` or `%`) before the first row, empty lines, a byte order mark and repetitions of
/// the header are skipped. If a file starts with a comment, later lines that start with `#` are
/// comments too. Lines end with `\n`, `\r\n` or `\r`. Spaces around a field are removed. All rows
/// have as many fields as the first, not counting empty ones at the end.
///
/// ```
/// use glta_data::readers::{Column, Table, TableConfig};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("orders.csv");
/// std::fs::write(&path, "customer_id;product_id;price\nann;007;\"2,50\"\n")?;
/// let mut table = Table::open(&path, &TableConfig::default())?;
/// let product = table.column(&Column::Name("product_id".into()))?;
/// while let Some(row) = table.next_row()? {
///     assert_eq!((row.line(), row.text(product)?), (2, "007"));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Table<'a> {
    records: Records<'a>,
    rows: Rows,
    columns: Vec<String>,
    /// The fields of the header.
    header: Option<Vec<String>>,
    width: usize,
    /// The line of the first row, or of the header.
    first_line: u64,
    /// Whether rows may have different numbers of fields.
    ragged: bool,
    sample: Sample,
    counts: Counts,
}

/// Counts of the lines of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows that were returned.
    pub rows: u64,
    /// Lines of comments.
    pub comments: u64,
    /// Repetitions of the header.
    pub headers: u64,
}

/// Number of bytes from which a format is recognised.
const HEAD: u64 = 64 << 10;

impl Table<'static> {
    /// Opens a table and recognises its format.
    ///
    /// # Errors
    /// A file that cannot be read or is not text.
    pub fn open(path: impl AsRef<Path>, config: &TableConfig) -> Result<Self> {
        Self::new(open_file(path.as_ref())?, config)
    }
}

impl<'a> Table<'a> {
    pub(crate) fn new(input: Input<'a>, config: &TableConfig) -> Result<Self> {
        let Input { file, mut reader } = input;
        let mut head = Vec::new();
        let read = reader.by_ref().take(HEAD).read_to_end(&mut head);
        read.map_err(|e| io_error(&file, e))?;
        let whole = (head.len() as u64) < HEAD;
        let found = sniff::recognise(&file, &head, whole, config)?;
        let mut head = Cursor::new(head);
        head.set_position(found.skipped.0 as u64);
        let input = Input { file, reader: Box::new(head.chain(reader)) };
        let mut table = Self {
            records: Records::new(input, found.rows, found.end_of_line, found.skipped.1)
                .with_keys(&found.keys),
            rows: found.rows,
            header: None,
            width: found.sample.first().map_or(found.keys.len(), Vec::len),
            columns: found.keys,
            first_line: found.skipped.1 + 1,
            ragged: false,
            sample: found.sample,
            counts: Counts { comments: found.comments, ..Counts::default() },
        };
        if found.header {
            table.read_header(found.ruled)?;
        }
        Ok(table)
    }

    /// Uses the first row as the names of the columns. `ruled` means that a line of dashes follows.
    fn read_header(&mut self, ruled: bool) -> Result<()> {
        if !self.records.advance()? {
            return Ok(());
        }
        let row = self.records.row();
        let mut header = Vec::with_capacity(row.len());
        for n in 0..row.len() {
            header.push(row.text(n)?.to_owned());
        }
        self.sample.retain(|row| *row != header);
        self.width = header.len();
        self.columns.clone_from(&header);
        // R's `write.table` gives the column of row names no name.
        let mut names = FxHashSet::default();
        if let Some(first) = self.sample.first()
            && first.len() == self.width + 1
            && self.sample.iter().all(|row| row.len() == first.len() && names.insert(&row[0]))
        {
            self.width += 1;
            self.columns.insert(0, String::new());
        }
        self.header = Some(header);
        if ruled {
            self.records.advance()?;
        }
        Ok(())
    }

    /// The names of the columns; empty without a header. For JSON lines these are the keys of the
    /// first rows (64 KB) and of the rows read since.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Number of fields per row; for JSON lines the number of keys so far.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the rows are JSON objects.
    pub fn has_objects(&self) -> bool {
        self.rows == Rows::Objects
    }

    /// The index of a column, from 0.
    ///
    /// # Errors
    /// [`Error::Line`] with the existing columns, if this one does not exist.
    pub fn column(&self, column: &Column) -> Result<usize> {
        column.index(&self.columns, self.width).map_err(|problem| self.malformed(problem))
    }

    /// The error for an invalid first row.
    pub(crate) fn malformed(&self, problem: String) -> Error {
        let keys = Some(&self.columns).filter(|_| self.has_objects());
        let first = self.header.as_ref().or(self.sample.first()).or(keys);
        let found = first.map(|row| self.rows.join(row).escape_debug().to_string());
        let found = found.map_or(String::new(), |found| format!(", found `{found}`"));
        let separator = match self.rows {
            Rows::Separated { .. } if self.width < 2 => {
                "; if the rows have another separator, name it (--separator)"
            }
            _ => "",
        };
        let problem = format!("{problem} ({}){found}{separator}", self.rows);
        Fault::Problem(problem).at(self.file(), self.first_line)
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Reads the next row; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Line`] for a row with another number of fields than the first, a quote that is not
    /// closed, text after a closing quote, a carriage return inside a line, or an invalid object.
    /// [`Error::Io`] if reading fails.
    #[inline]
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>> {
        loop {
            if !self.records.advance()? {
                return Ok(None);
            }
            let row = self.records.row();
            if row.len() == self.width && !row.starts_with(b'#') && !self.may_be_header(&row) {
                break;
            }
            if self.skips()? {
                continue;
            }
            break;
        }
        self.counts.rows += 1;
        Ok(Some(self.records.row()))
    }

    #[inline]
    fn may_be_header(&self, row: &Row<'_>) -> bool {
        self.header.as_ref().is_some_and(|header| row.bytes(0) == header[0].as_bytes())
    }

    /// Whether the current row is a comment or a repeated header.
    #[cold]
    fn skips(&mut self) -> Result<bool> {
        let row = self.records.row();
        if self.rows == Rows::Objects {
            for key in self.records.keys().skip(self.columns.len()) {
                self.columns.push(key.clone());
            }
            self.width = self.columns.len();
            return Ok(false);
        }
        if row.starts_with(b'#') && (self.counts.comments > 0 || row.len() != self.width) {
            self.counts.comments += 1;
            return Ok(true);
        }
        if let Some(header) = &self.header
            && header.len() == row.len()
            && header.iter().enumerate().all(|(n, name)| row.bytes(n) == name.as_bytes())
        {
            self.counts.headers += 1;
            return Ok(true);
        }
        let full = row.len() >= self.width;
        if self.ragged || (full && (self.width..row.len()).all(|n| row.bytes(n).is_empty())) {
            return Ok(false);
        }
        let form = match &self.header {
            Some(header) => format!("as the header `{}`", self.rows.join(header)),
            None => "as the first row".into(),
        };
        let (fields, width) = (row.len(), self.width);
        let mut problem = format!(
            "expected {width} fields {form}, {}, found {fields}: `{}`",
            self.rows,
            shown(row.text)
        );
        if !self.has_objects() {
            problem += "; if the rows are lists of items, choose --layout lists";
        }
        Err(Fault::Problem(problem).at(row.file, row.line))
    }

    /// The first rows without the header; empty for JSON lines.
    pub(crate) fn sample(&self) -> &[Vec<String>] {
        &self.sample
    }

    /// Allows rows with any number of fields, as in lists of items.
    pub fn allow_ragged(&mut self) {
        self.ragged = true;
    }

    pub(crate) fn file(&self) -> &str {
        self.records.file()
    }

    /// The entry of the report for this file, with `layout` as its content.
    pub(crate) fn report(&self, layout: &str) -> FileReport {
        FileReport {
            file: base_name(self.file()),
            layout: format!("{layout}, {self}"),
            rows: self.counts.rows,
        }
    }
}

/// Describes the format of the table.
impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rows)?;
        match (&self.header, self.rows) {
            (_, Rows::Objects) => Ok(()),
            (Some(header), _) if header.iter().all(|name| typed(name).is_some()) => {
                write!(f, ", header with RecBole's types")
            }
            (Some(_), _) => write!(f, ", with a header"),
            (None, _) => write!(f, ", no header"),
        }
    }
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("file", &self.file())
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// The name of a file without its folders.
pub(crate) fn base_name(file: &str) -> String {
    let name = Path::new(file).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A row of a [`Table`].
#[derive(Clone, Copy)]
pub struct Row<'r> {
    file: &'r str,
    line: u64,
    text: &'r [u8],
    ends: &'r [usize],
    gap: usize,
    /// Fields of an object that are lists or objects.
    compound: &'r [usize],
}

impl<'r> Row<'r> {
    /// The line at which the row starts, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Number of fields.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Field `n`, from 0, without spaces around it; empty if the row has fewer fields.
    #[inline]
    pub fn bytes(&self, n: usize) -> &'r [u8] {
        let Some(&end) = self.ends.get(n) else {
            return &[];
        };
        let start = if n == 0 { 0 } else { self.ends[n - 1] + self.gap };
        let field = &self.text[start..end];
        match field {
            [first, .., last] if *first > b' ' && *last > b' ' => field,
            _ => field.trim_ascii(),
        }
    }

    /// Field `n` as text.
    ///
    /// # Errors
    /// [`Error::Line`] if it is not UTF-8.
    pub fn text(&self, n: usize) -> Result<&'r str> {
        let bytes = self.bytes(n);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.trim()),
            Err(e) => {
                let at = e.valid_up_to() + 1;
                let problem = format!("not UTF-8 at byte {at} of `{}`", shown(bytes));
                Err(self.error(problem))
            }
        }
    }

    /// Whether field `n` was a list or an object, which [`text`](Self::text) renders as text.
    pub(crate) fn is_compound(&self, n: usize) -> bool {
        self.compound.contains(&n)
    }

    /// Whether all fields are empty, as in rows that spreadsheets add at the end.
    pub(crate) fn is_blank(&self) -> bool {
        (0..self.len()).all(|n| self.bytes(n).is_empty())
    }

    /// The error for an invalid row.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Fault::Problem(problem.into()).at(self.file, self.line)
    }

    /// The error for a row that does not have the expected form.
    pub(crate) fn expected(&self, form: &str) -> Error {
        let line = self.joined();
        expected(form, &line).at(self.file, self.line)
    }

    /// The error for a fault in this row.
    pub(crate) fn fault(&self, fault: impl Into<Fault>) -> Error {
        fault.into().at(self.file, self.line)
    }

    #[inline]
    fn starts_with(&self, byte: u8) -> bool {
        self.text.first() == Some(&byte)
    }

    /// The row as one line, for messages.
    fn joined(&self) -> Vec<u8> {
        let fields: Vec<&[u8]> = (0..self.len()).map(|n| self.bytes(n)).collect();
        if self.gap > 0 { self.text.to_vec() } else { fields.join(&b' ') }
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = (0..self.len()).map(|n| String::from_utf8_lossy(self.bytes(n)));
        f.debug_list().entries(fields).finish()
    }
}
