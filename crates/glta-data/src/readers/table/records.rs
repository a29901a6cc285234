use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use indexmap::IndexSet;
use memchr::memchr;
use serde_json::Value;

use super::Row;
use super::form::{Rows, Separator};
use super::quotes::Place;
use crate::Result;
use crate::readers::input::Input;
use crate::readers::json::{Entries, parse_record};
use crate::readers::lines::{Fault, Lines, MAX_LINE, shown};

/// Maximum number of columns.
const MAX_COLUMNS: usize = 1 << 16;

/// A reader of the rows of a file.
pub(crate) struct Records<'a> {
    lines: Lines<'a>,
    rows: Rows,
    /// Number of lines before the first line of `lines`.
    before: u64,
    parser: Reader,
    /// Text of a row that spans several lines.
    joined: Vec<u8>,
    /// Concatenated fields of the row. `ends` contains the end of each field.
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Whether the fields are in the line, with separators between them, instead of in `text`.
    in_place: bool,
    line: u64,
    /// Keys of the objects in the order of their first appearance.
    keys: IndexSet<String>,
    /// Indices of the fields of the last object that are lists or objects.
    compound: Vec<usize>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(input: Input<'a>, rows: Rows, end_of_line: u8, before: u64) -> Self {
        let mut parser = ReaderBuilder::new();
        if let Rows::Separated { separator: Separator::Byte(byte), quotes } = rows {
            parser.delimiter(byte).quoting(quotes);
        }
        Self {
            lines: Lines::new(input).ending_with(end_of_line),
            rows,
            before,
            parser: parser.build(),
            joined: Vec::new(),
            text: Vec::new(),
            ends: Vec::new(),
            in_place: false,
            line: 0,
            keys: IndexSet::new(),
            compound: Vec::new(),
        }
    }

    /// Sets the keys of the first fields of every object. The fields of new keys follow.
    pub(crate) fn with_keys(mut self, keys: &[String]) -> Self {
        self.keys = keys.iter().cloned().collect();
        self
    }

    pub(crate) fn file(&self) -> &str {
        self.lines.file()
    }

    /// Returns the current row, after [`advance`](Self::advance).
    #[inline]
    pub(crate) fn row(&self) -> Row<'_> {
        let (text, gap) = if self.in_place { (self.lines.line(), 1) } else { (&*self.text, 0) };
        let compound = &self.compound;
        Row { file: self.lines.file(), line: self.line, text, ends: &self.ends, gap, compound }
    }

    /// Returns the keys of the objects read so far.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.iter()
    }

    /// Reads the next row. Returns false at the end of the file.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if !self.lines.advance()? {
            return Ok(false);
        }
        self.line = self.before + self.lines.number();
        match self.rows {
            Rows::Separated { separator: Separator::Byte(byte), quotes } => {
                if self.lines.is_special() {
                    return self.advance_special(byte, quotes);
                }
                self.in_place = true;
                split(self.lines.line(), byte, &mut self.ends);
                Ok(true)
            }
            _ => self.advance_other(),
        }
    }

    /// Reads a row that may contain quotes or carriage returns.
    fn advance_special(&mut self, separator: u8, quotes: bool) -> Result<bool> {
        let line = self.lines.line();
        if quotes && memchr(b'"', line).is_some() {
            self.joined.clear();
            self.joined.extend_from_slice(line);
            self.in_place = false;
            return self.advance_quoted(separator);
        }
        if memchr(b'\r', line).is_some() {
            return Err(stray_return(line).at(self.lines.file(), self.line));
        }
        self.in_place = true;
        split(line, separator, &mut self.ends);
        Ok(true)
    }

    /// Reads a row whose fields must be copied out of the line.
    fn advance_other(&mut self) -> Result<bool> {
        self.in_place = false;
        let (line, text, ends) = (self.lines.line(), &mut self.text, &mut self.ends);
        let read = match self.rows {
            Rows::Separated { separator: Separator::DoubleColon, .. } => {
                double_colons(line, text, ends);
                Ok(())
            }
            Rows::Separated { .. } => {
                fields(line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()), text, ends);
                Ok(())
            }
            Rows::Objects => object(line, &mut self.keys, &mut self.compound, text, ends),
        };
        read.map_err(|fault| fault.at(self.lines.file(), self.line))?;
        Ok(true)
    }

    /// Reads a row with quotes, which may span several lines. Its first line is in `joined`.
    fn advance_quoted(&mut self, separator: u8) -> Result<bool> {
        let mut place = Place::Start;
        let mut scanned = 0;
        let mut at = self.line;
        loop {
            place = place.after(&self.joined[scanned..], separator).map_err(|byte| {
                let found = shown(&self.joined[scanned..]);
                let from = if at == self.line {
                    String::new()
                } else {
                    format!(" (of a field that a quote opens on line {})", self.line)
                };
                let problem = format!(
                    "something follows the closing quote at byte {byte}{from} in `{found}`; if \
                     quotes are part of the text, read the file without quoting (--quotes no)"
                );
                Fault::Problem(problem).at(self.lines.file(), at)
            })?;
            if place != Place::Quoted {
                break;
            }
            self.joined.push(b'\n');
            scanned = self.joined.len();
            let next = self.lines.next()?;
            let Some((number, line)) = next.filter(|_| scanned < MAX_LINE) else {
                let found = shown(&self.joined);
                let problem = format!(
                    "a quote that opens here is not closed: `{found}`; if quotes are part of the \
                     text, read the file without quoting (--quotes no)"
                );
                return Err(Fault::Problem(problem).at(self.lines.file(), self.line));
            };
            at = self.before + number;
            self.joined.extend_from_slice(line);
        }
        self.parser.reset();
        self.text.resize(self.joined.len() + 1, 0);
        let separators = memchr::memchr_iter(separator, &self.joined).count();
        self.ends.resize(separators + 2, 0);
        let (_, read, written, mut fields) =
            self.parser.read_record(&self.joined, &mut self.text, &mut self.ends);
        let mut end = written;
        if read == self.joined.len() {
            let (result, _, written, more) =
                self.parser.read_record(&[], &mut self.text[end..], &mut self.ends[fields..]);
            debug_assert_ne!(result, ReadRecordResult::OutputFull);
            end += written;
            fields += more;
        }
        self.text.truncate(end);
        self.ends.truncate(fields);
        if read < self.joined.len() {
            return Err(stray_return(&self.joined).at(self.lines.file(), self.line));
        }
        Ok(true)
    }
}

/// Appends the ends of the fields of a line without quotes to `ends`.
#[inline]
fn split(line: &[u8], separator: u8, ends: &mut Vec<usize>) {
    ends.clear();
    // Fields are a few bytes long, so a plain loop is faster than a vectorised search.
    for (at, &byte) in line.iter().enumerate() {
        if byte == separator {
            ends.push(at);
        }
    }
    ends.push(line.len());
}

#[cold]
fn stray_return(line: &[u8]) -> Fault {
    let found = shown(line);
    Fault::Problem(format!("a carriage return inside the line `{found}`; end all lines alike"))
}

fn fields<'f>(fields: impl Iterator<Item = &'f [u8]>, text: &mut Vec<u8>, ends: &mut Vec<usize>) {
    text.clear();
    ends.clear();
    for field in fields {
        text.extend_from_slice(field);
        ends.push(text.len());
    }
}

fn double_colons(line: &[u8], text: &mut Vec<u8>, ends: &mut Vec<usize>) {
    let mut rest = Some(line);
    let split = std::iter::from_fn(|| {
        let line = rest?;
        let at = memchr::memmem::find(line, b"::");
        rest = at.map(|at| &line[at + 2..]);
        Some(&line[..at.unwrap_or(line.len())])
    });
    fields(split, text, ends);
}

/// Writes the values of an object in the order of the keys.
fn object(
    line: &[u8],
    keys: &mut IndexSet<String>,
    compound: &mut Vec<usize>,
    text: &mut Vec<u8>,
    ends: &mut Vec<usize>,
) -> std::result::Result<(), Fault> {
    if line.trim_ascii() == b"{" {
        let problem = "an object over several lines; write each object in one line (in pandas \
                       `orient=\"records\", lines=True`)";
        return Err(Fault::Problem(problem.into()));
    }
    let record: Entries<Value> = parse_record(line)?;
    let mut values: Vec<Option<String>> = vec![None; keys.len()];
    compound.clear();
    for (key, value) in record.0 {
        let (at, new) = keys.insert_full(key);
        if new {
            values.push(None);
        }
        if values[at].is_some() {
            let key = keys.get_index(at).map_or("", String::as_str);
            return Err(Fault::Problem(format!("the key `{key}` occurs twice")));
        }
        if value.is_array() || value.is_object() {
            compound.push(at);
        }
        values[at] = Some(flat(value)?);
    }
    if keys.len() > MAX_COLUMNS {
        return Err(Fault::Problem(format!("more than {MAX_COLUMNS} different keys")));
    }
    fields(values.iter().map(|value| value.as_deref().unwrap_or("").as_bytes()), text, ends);
    Ok(())
}

/// Renders a value as text. Null is empty, and the parts of a list are joined by `, `.
fn flat(value: Value) -> std::result::Result<String, Fault> {
    Ok(match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(list) => {
            let parts = list.into_iter().map(flat).collect::<std::result::Result<Vec<_>, _>>()?;
            parts.join(", ")
        }
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(rounded) => {
            let problem = format!(
                "the number {number} has too many digits to be read exactly; write it in quotes"
            );
            return Err(Fault::Problem(problem));
        }
        other => other.to_string(),
    })
}

/// Returns whether a number may have lost digits when it was parsed.
fn rounded(number: f64) -> bool {
    number.abs() >= (1u64 << 53) as f64
}
