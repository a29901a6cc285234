//! Recognises the format of a file from its first rows.

use super::TableConfig;
use super::form::{Rows, Separator};
use super::names::{ITEM, RATING, TIME, USER, find, typed};
use super::quotes::Place;
use super::records::Records;
use super::values;
use crate::readers::input::Input;
use crate::{Error, Result};

/// First rows of a file, as texts.
pub(crate) type Sample = Vec<Vec<String>>;

/// Maximum number of rows in a sample.
const ROWS: usize = 1000;

/// The recognised format of a file.
pub(crate) struct Recognised {
    pub(crate) rows: Rows,
    pub(crate) header: bool,
    /// Whether a line of dashes follows the header, as in tables of psql and Markdown.
    pub(crate) ruled: bool,
    pub(crate) end_of_line: u8,
    /// Number of bytes and number of lines before the first row, which are comments or empty.
    pub(crate) skipped: (usize, u64),
    /// Number of comments among the skipped lines.
    pub(crate) comments: u64,
    /// First rows, including the header. For JSON lines, the sample is empty.
    pub(crate) sample: Sample,
    /// Keys of the objects in the first lines, for JSON lines.
    pub(crate) keys: Vec<String>,
}

/// Recognises the format of a file by its first bytes `head`. `whole` is true if `head` is the
/// whole file.
pub(crate) fn recognise(
    file: &str,
    head: &[u8],
    whole: bool,
    config: &TableConfig,
) -> Result<Recognised> {
    let refused = |problem: &str| {
        let problem = format!("is not text: it looks like {problem}");
        Error::Io {
            file: file.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, problem),
        }
    };
    for (start, what) in [
        (&b"PK\x03\x04"[..], "a zip archive or a spreadsheet; extract it, or save it as CSV"),
        (b"PAR1", "a Parquet file; save it as CSV or JSON lines"),
    ] {
        if head.starts_with(start) {
            return Err(refused(what));
        }
    }
    if head.contains(&0) {
        return Err(refused("a binary file, because it has zero bytes"));
    }
    let end_of_line = if head.contains(&b'\r') && !head.contains(&b'\n') { b'\r' } else { b'\n' };
    let (skipped, comments, said) = comments(head, end_of_line);
    let separator = config.separator.or(said);
    let data = &head[skipped.0..];
    let mut recognised = Recognised {
        rows: Rows::Objects,
        header: false,
        ruled: false,
        end_of_line,
        skipped,
        comments,
        sample: Vec::new(),
        keys: Vec::new(),
    };
    // A truncated line gives no information, and its missing end is not an error.
    let end = if whole { data.len() } else { last_line_end(data, end_of_line) };
    let data = &data[..end];
    if separator.is_none() {
        match data.first() {
            Some(b'{') => {
                recognised.keys = keys(file, data, end_of_line, skipped.1)?;
                return Ok(recognised);
            }
            Some(b'[') => {
                return Err(Error::Line {
                    file: file.to_owned(),
                    line: skipped.1 + 1,
                    problem: "a JSON array; write one object per line (in pandas \
                              `orient=\"records\", lines=True`)"
                        .into(),
                });
            }
            _ => {}
        }
    }
    let with = |separator: Separator| {
        let quotes =
            config.quotes.unwrap_or_else(|| quotes_are_sound(data, separator, end_of_line));
        let rows = Rows::Separated { separator, quotes };
        (rows, sample(data, rows, end_of_line))
    };
    let (rows, mut sample) = match separator {
        Some(separator) => with(separator),
        None => choose(with),
    };
    if comments > 0 {
        sample.retain(|row| row.first().is_none_or(|field| !field.starts_with('#')));
    }
    let in_single =
        |field: &String| field.len() > 1 && field.starts_with('\'') && field.ends_with('\'');
    if sample.len() > 1 && sample.iter().flatten().all(in_single) {
        return Err(Error::Line {
            file: file.to_owned(),
            line: skipped.1 + 1,
            problem: "all fields are in single quotes, which would become part of the fields; use \
                      double quotes or none"
                .into(),
        });
    }
    recognised.rows = rows;
    recognised.ruled = sample.get(1).is_some_and(|row| is_rule(row));
    if recognised.ruled {
        sample.remove(1);
    }
    recognised.header = config.header.unwrap_or_else(|| recognised.ruled || is_header(&sample));
    recognised.sample = sample;
    Ok(recognised)
}

fn last_line_end(data: &[u8], end_of_line: u8) -> usize {
    data.iter().rposition(|&byte| byte == end_of_line).map_or(data.len(), |at| at + 1)
}

/// Returns whether a row is the line below the header of a printed table, such as `---+---`.
fn is_rule(row: &[String]) -> bool {
    let dashes = |field: &String| field.bytes().all(|byte| b"-+=: ".contains(&byte));
    row.iter().all(dashes) && row.iter().any(|field| field.contains("--"))
}

/// Skips the lines before the first row. Returns the numbers of skipped bytes and lines, the number
/// of comments among them, and the separator in a line `sep=;` of a spreadsheet.
fn comments(head: &[u8], end_of_line: u8) -> ((usize, u64), u64, Option<Separator>) {
    let (mut at, mut lines, mut comments, mut separator) = (0, 0, 0, None);
    for line in head[at..].split_inclusive(|&byte| byte == end_of_line) {
        let ends = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let end = line.iter().position(ends).unwrap_or(line.len());
        let said = line[..end].strip_prefix(b"sep=");
        match line.trim_ascii().first() {
            Some(b'#' | b'%') => comments += 1,
            _ if lines == 0 && matches!(said, Some([_])) => {
                separator = said.map(|said| Separator::Byte(said[0]));
            }
            Some(_) => break,
            None => {}
        }
        at += line.len();
        lines += 1;
    }
    ((at, lines), comments, separator)
}

/// Returns whether every quote at the start of a field is closed. A truncated text may end within
/// quotes.
fn quotes_are_sound(data: &[u8], separator: Separator, end_of_line: u8) -> bool {
    let Separator::Byte(separator) = separator else {
        return false;
    };
    let mut place = Place::Start;
    for line in data.split(|&byte| byte == end_of_line) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match place.after(line, separator) {
            Ok(Place::Quoted) => place = Place::Quoted,
            Ok(_) => place = Place::Start,
            // Tables with tabs or bars are often written without any quoting.
            Err(_) => return !matches!(separator, b'\t' | b'|'),
        }
    }
    true
}

/// Returns the keys of the objects in `data`, the first lines of a file.
fn keys(file: &str, data: &[u8], end_of_line: u8, before: u64) -> Result<Vec<String>> {
    let input = Input { file: file.to_owned(), reader: Box::new(data) };
    let mut records = Records::new(input, Rows::Objects, end_of_line, before);
    while records.advance()? {}
    Ok(records.keys().cloned().collect())
}

/// Returns the first rows, split at a separator. Malformed quotes count as text in the sample, and
/// the error is reported when the rows are read.
fn sample(data: &[u8], rows: Rows, end_of_line: u8) -> Sample {
    let input = Input { file: String::new(), reader: Box::new(data) };
    let mut records = Records::new(input, rows, end_of_line, 0);
    let mut sample = Vec::new();
    while sample.len() < ROWS {
        match (records.advance(), rows) {
            (Ok(true), _) => {}
            (Err(_), Rows::Separated { separator, quotes: true }) => {
                let rows = Rows::Separated { separator, quotes: false };
                return self::sample(data, rows, end_of_line);
            }
            _ => break,
        }
        let row = records.row();
        let text = |n| String::from_utf8_lossy(row.bytes(n)).into_owned();
        sample.push((0..row.len()).map(text).collect());
    }
    sample
}

/// Chooses the separator that divides most rows, preferably into equal numbers of fields.
fn choose(with: impl Fn(Separator) -> (Rows, Sample)) -> (Rows, Sample) {
    let candidates = [
        Separator::DoubleColon,
        Separator::Byte(b'\t'),
        Separator::Byte(b','),
        Separator::Byte(b';'),
        Separator::Byte(b'|'),
    ];
    let mut best = None;
    let mut most = (0, false, 0);
    for separator in candidates {
        let (rows, sample) = with(separator);
        let divided = sample.iter().filter(|row| row.len() > 1).count();
        let width = sample.first().map_or(0, Vec::len);
        let even = sample.iter().all(|row| row.len() == width);
        let rank = (divided, even, if even { width } else { 0 });
        // The separator must divide more than half of the rows, because a comma in a name is not a
        // separator.
        if 2 * divided > sample.len() && rank > most {
            most = rank;
            best = Some((rows, sample));
            if separator == Separator::DoubleColon && even {
                break;
            }
        }
    }
    let blanks = || {
        let (rows, sample) = with(Separator::Blanks);
        // R's `write.table` puts spaces between quoted fields.
        if sample.iter().flatten().any(|field| field.starts_with('"')) {
            return with(Separator::Byte(b' '));
        }
        (rows, sample)
    };
    best.unwrap_or_else(blanks)
}

/// Returns whether the first row contains the names of the columns.
fn is_header(sample: &Sample) -> bool {
    let [first, rest @ ..] = sample.as_slice() else {
        return false;
    };
    if first.iter().all(|name| typed(name).is_some()) {
        return true;
    }
    let is_number =
        |text: &str| text.bytes().any(|b| b.is_ascii_digit()) && text.parse::<f64>().is_ok();
    if first.iter().any(|field| is_number(field)) {
        return false;
    }
    let known = [USER, ITEM, RATING, TIME].map(|known| find(known, first).is_some());
    if known.iter().filter(|known| **known).count() > 1 {
        return true;
    }
    let all = |column: usize, holds: &dyn Fn(&str) -> bool| {
        let mut fields = rest.iter().filter_map(|row| row.get(column)).peekable();
        fields.peek().is_some() && fields.all(|field| holds(field))
    };
    let is_value = |text: &str| is_number(text) || values::time(text.as_bytes()).is_some();
    // The first row has a word above a column of numbers or times.
    if (0..first.len()).any(|column| !is_value(&first[column]) && all(column, &is_value)) {
        return true;
    }
    // The first row has two words above columns of ids that all contain digits.
    let has_digit = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
    let heads = |column: usize| {
        first.get(column).is_some_and(|name| !has_digit(name)) && all(column, &has_digit)
    };
    rest.len() > 2 && heads(0) && heads(1)
}
