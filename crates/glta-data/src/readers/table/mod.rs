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

/// The format of a table. If a field is `None`, the reader recognises its value from the content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// Whether the first row contains the names of the columns.
    pub header: Option<bool>,
    /// Separator between two fields.
    pub separator: Option<Separator>,
    /// Whether `"` around a field is a quote (RFC 4180) and not a part of the text.
    pub quotes: Option<bool>,
}

/// A table that is read row by row. It is CSV or a similar format, fields separated by spaces or
/// `::`, RecBole's `.inter` and `.item`, or JSON lines. The file may be plain or gzipped, UTF-8 or
/// UTF-16.
///
/// Comments (`#` or `%`) before the first row, empty lines, a byte order mark and repetitions of
/// the header are skipped. If a file starts with a comment, later lines that start with `#` are
/// comments too. Lines end with `\n`, `\r\n` or `\r`. Spaces around a field are removed. All rows
/// must have as many fields as the first row, not counting empty fields at the end.
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
    /// Fields of the header row, if the table has one.
    header: Option<Vec<String>>,
    width: usize,
    /// Line of the header or, without a header, of the first row.
    first_line: u64,
    /// Whether rows may have different numbers of fields.
    ragged: bool,
    sample: Sample,
    counts: Counts,
}

/// Numbers of rows, comments and repeated headers of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Number of rows that were returned.
    pub rows: u64,
    /// Number of lines that are comments.
    pub comments: u64,
    /// Number of repetitions of the header.
    pub headers: u64,
}

/// Number of bytes at the start of a file from which its format is recognised.
const HEAD: u64 = 64 << 10;

impl Table<'static> {
    /// Opens a table and recognises its format.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not text.
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

    /// Uses the first row as the names of the columns. If `ruled` is true, also skips the line of
    /// dashes after it.
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
        // R's `write.table` writes a column of row names but no name for it.
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

    /// Returns the names of the columns, and an empty slice for a table without a header. For JSON
    /// lines, they are the keys in the first 64 KB and in the rows read since.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the number of fields per row. For JSON lines, it is the number of keys so far.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns whether the rows are JSON objects.
    pub fn has_objects(&self) -> bool {
        self.rows == Rows::Objects
    }

    /// Returns the index of a column, from 0.
    ///
    /// # Errors
    /// Returns [`Error::Line`] with the existing columns if the table does not have this column.
    pub fn column(&self, column: &Column) -> Result<usize> {
        column.index(&self.columns, self.width).map_err(|problem| self.malformed(problem))
    }

    /// Returns the error for an invalid first row.
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

    /// Returns the counts of the lines read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Reads the next row. Returns `None` at the end of the table.
    ///
    /// # Errors
    /// Returns [`Error::Line`] if a row has a different number of fields than the first row, a
    /// quote that is not closed, text after a closing quote, a carriage return inside a line, or an
    /// invalid object. Returns [`Error::Io`] if reading fails.
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

    /// Returns whether the current row is a comment or a repeated header.
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

    /// Returns the first rows without the header. For JSON lines, the sample is empty.
    pub(crate) fn sample(&self) -> &[Vec<String>] {
        &self.sample
    }

    /// Allows rows with any number of fields, as in files with one list of items per row.
    pub fn allow_ragged(&mut self) {
        self.ragged = true;
    }

    pub(crate) fn file(&self) -> &str {
        self.records.file()
    }

    /// Returns the report entry of the file. `layout` describes the content of the file.
    pub(crate) fn report(&self, layout: &str) -> FileReport {
        FileReport {
            file: base_name(self.file()),
            layout: format!("{layout}, {self}"),
            rows: self.counts.rows,
        }
    }
}

/// Writes the format of the table in words.
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

/// Returns the name of a file without its folders.
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
    /// Indices of the fields whose JSON values are lists or objects.
    compound: &'r [usize],
}

impl<'r> Row<'r> {
    /// Returns the line at which the row starts, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Returns the number of fields.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns field `n`, from 0, without the spaces around it. The field is empty if the row is
    /// shorter.
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

    /// Returns field `n`, from 0, as text.
    ///
    /// # Errors
    /// Returns [`Error::Line`] if the field is not UTF-8.
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

    /// Returns whether field `n` is a list or an object, which [`text`](Self::text) renders as
    /// text.
    pub(crate) fn is_compound(&self, n: usize) -> bool {
        self.compound.contains(&n)
    }

    /// Returns whether all fields are empty. Spreadsheets add such rows at the end.
    pub(crate) fn is_blank(&self) -> bool {
        (0..self.len()).all(|n| self.bytes(n).is_empty())
    }

    /// Returns an error that reports a problem of the row, with file and line.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Fault::Problem(problem.into()).at(self.file, self.line)
    }

    /// Returns the error for a row that does not have the expected form.
    pub(crate) fn expected(&self, form: &str) -> Error {
        let line = self.joined();
        expected(form, &line).at(self.file, self.line)
    }

    /// Returns the error for a fault in the row, with file and line.
    pub(crate) fn fault(&self, fault: impl Into<Fault>) -> Error {
        fault.into().at(self.file, self.line)
    }

    #[inline]
    fn starts_with(&self, byte: u8) -> bool {
        self.text.first() == Some(&byte)
    }

    /// Joins the fields of the row to one line, for messages.
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
