//! Lines of a file as byte slices, with file and line number in every error.
//!
//! `bstr` and the standard library read lines of any length, so a corrupt or malicious archive
//! without line ends would fill the memory. This module limits the length of a line.

use std::borrow::Cow;
use std::io::Read;

use memchr::{memchr, memchr2};

use super::input::{Input, io_error};
use crate::{Error, Result};

/// Reason why a line cannot be used.
pub(crate) enum Fault {
    /// A problem of the line, to which [`at`](Self::at) adds file and line number.
    Problem(String),
    /// An error that [`at`](Self::at) returns unchanged.
    Error(Error),
}

impl Fault {
    /// Returns the error, with file and line added to a problem or a missing id.
    pub(crate) fn at(self, file: &str, line: u64) -> Error {
        let problem = match self {
            Self::Problem(problem) => problem,
            Self::Error(error @ Error::MissingId { .. }) => error.to_string(),
            Self::Error(error) => return error,
        };
        Error::Line { file: file.to_owned(), line, problem }
    }
}

impl From<String> for Fault {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

const BUFFER: usize = 256 << 10;
/// Maximum length of a line in bytes.
pub(crate) const MAX_LINE: usize = 64 << 20;

/// An iterator over the non-empty lines of a file.
pub(crate) struct Lines<'a> {
    file: String,
    reader: Box<dyn Read + 'a>,
    end_of_line: u8,
    number: u64,
    buffer: Vec<u8>,
    /// Start of the part of `buffer` that was not returned yet. The part ends at `filled`. It
    /// contains no line end before `searched`.
    start: usize,
    filled: usize,
    searched: usize,
    /// Start and end of the current line in `buffer`.
    last: (usize, usize),
    /// Whether `buffer` may contain a quote or a carriage return.
    special: bool,
}

impl<'a> Lines<'a> {
    /// Creates an iterator over lines that end with `\n` or `\r\n`.
    pub(crate) fn new(input: Input<'a>) -> Self {
        Self {
            file: input.file,
            reader: input.reader,
            end_of_line: b'\n',
            number: 0,
            buffer: vec![0; BUFFER],
            start: 0,
            filled: 0,
            searched: 0,
            last: (0, 0),
            special: false,
        }
    }

    /// Sets the byte that ends a line.
    pub(crate) fn ending_with(mut self, byte: u8) -> Self {
        self.end_of_line = byte;
        self
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Returns the next non-empty line and its number, from 1. A byte order mark before the line is
    /// skipped.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        Ok(if self.advance()? { Some((self.number, self.line())) } else { None })
    }

    /// Moves to the next non-empty line. Returns false at the end of the file.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        loop {
            let Some((mut start, mut end)) = self.take()? else {
                return Ok(false);
            };
            self.number += 1;
            let line = &self.buffer[start..end];
            end -= usize::from(line.ends_with(b"\r"));
            // Several files with byte order marks may have been concatenated.
            if line.starts_with(b"\xef\xbb\xbf") {
                start += 3;
            }
            if start < end {
                self.last = (start, end);
                return Ok(true);
            }
        }
    }

    /// Returns the current line, after [`advance`](Self::advance).
    #[inline]
    pub(crate) fn line(&self) -> &[u8] {
        &self.buffer[self.last.0..self.last.1]
    }

    /// Returns the number of the current line, from 1.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether the current line may contain a quote or a carriage return.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.special
    }

    /// Returns start and end of the next complete line in the buffer.
    #[inline]
    fn take(&mut self) -> Result<Option<(usize, usize)>> {
        loop {
            let fresh = &self.buffer[self.searched..self.filled];
            if let Some(at) = memchr(self.end_of_line, fresh) {
                let line = (self.start, self.searched + at);
                self.start = line.1 + 1;
                self.searched = self.start;
                return Ok(Some(line));
            }
            if !self.fill()? {
                let line = (self.start, self.filled);
                self.start = self.filled;
                self.searched = self.filled;
                return Ok((line.0 < line.1).then_some(line));
            }
        }
    }

    /// Reads more bytes into the buffer. Returns false at the end of the file.
    #[cold]
    fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        self.searched = self.filled;
        if self.filled == self.buffer.len() {
            if self.filled >= MAX_LINE {
                let problem = format!("line longer than {} MB", MAX_LINE >> 20);
                let error = std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
                return Err(io_error(&self.file, error));
            }
            self.buffer.resize(2 * self.filled, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.filled..]) {
                Ok(got) => {
                    self.filled += got;
                    self.special = memchr2(b'"', b'\r', &self.buffer[..self.filled]).is_some();
                    return Ok(got > 0);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error(&self.file, e)),
            }
        }
    }
}

/// Calls `each(number, line)` for every non-empty line, without its `\n` or `\r\n`. Numbers start
/// at 1.
pub(crate) fn for_each_line(
    input: Input<'_>,
    mut each: impl FnMut(u64, &[u8]) -> std::result::Result<(), Fault>,
) -> Result<()> {
    let mut lines = Lines::new(input);
    while let Some((number, line)) = lines.next()? {
        if let Err(fault) = each(number, line) {
            return Err(fault.at(&lines.file, number));
        }
    }
    Ok(())
}

/// Returns the line as text, or a fault if it is not UTF-8.
pub(crate) fn utf8(line: &[u8]) -> std::result::Result<&str, Fault> {
    std::str::from_utf8(line).map_err(|e| {
        Fault::Problem(format!("not UTF-8 at byte {} of `{}`", e.valid_up_to() + 1, shown(line)))
    })
}

/// Returns the line as UTF-8. A line that is not UTF-8 is read as ISO-8859-1, the encoding of the
/// older MovieLens files.
pub(crate) fn utf8_or_latin1(line: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => encoding_rs::mem::decode_latin1(line),
    }
}

/// Returns a line for a message, truncated after 80 bytes.
pub(crate) fn shown(line: &[u8]) -> String {
    const MOST: usize = 80;
    let text = String::from_utf8_lossy(&line[..line.len().min(MOST)]);
    let more = if line.len() > MOST { "…" } else { "" };
    format!("{}{more}", text.escape_debug())
}

/// Returns the fault of a line that does not have the expected form.
pub(crate) fn expected(form: &str, line: &[u8]) -> Fault {
    Fault::Problem(format!("expected {form}, found `{}`", shown(line)))
}

/// Parses a decimal integer of at most 18 digits, with an optional minus sign.
#[inline]
pub(crate) fn integer(field: &[u8]) -> Option<i64> {
    let (negative, digits) = match field.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, field),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// Parses a finite decimal number. The frequent forms `4` and `4.5` of ratings have a fast path.
#[inline]
pub(crate) fn decimal(field: &[u8]) -> Option<f32> {
    match *field {
        [whole @ b'0'..=b'9'] => Some(f32::from(whole - b'0')),
        [whole @ b'0'..=b'9', b'.', tenth @ b'0'..=b'9'] => {
            Some(f32::from((whole - b'0') * 10 + (tenth - b'0')) / 10.0)
        }
        _ => std::str::from_utf8(field).ok()?.parse().ok().filter(|value: &f32| value.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(bytes: &[u8]) -> Input<'_> {
        Input { file: "f".into(), reader: Box::new(bytes) }
    }

    fn lines(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        for_each_line(input(bytes), |n, line| {
            all.push((n, line.to_vec()));
            Ok(())
        })
        .unwrap();
        all
    }

    proptest! {
        #[test]
        fn equal_to_splitting(text in "[ab\r\n]{0,60}") {
            let expected: Vec<(u64, Vec<u8>)> = (1..)
                .zip(text.split('\n'))
                .map(|(n, l)| (n, l.strip_suffix('\r').unwrap_or(l).as_bytes().to_vec()))
                .filter(|(_, l)| !l.is_empty())
                .collect();
            prop_assert_eq!(lines(text.as_bytes()), expected);
        }

        #[test]
        fn numbers_as_the_standard_library_reads_them(text in "-?[0-9]{0,20}(\\.[0-9]{0,3})?") {
            let by_std = text.parse::<i64>().ok().filter(|_| text.trim_start_matches('-').len() <= 18);
            prop_assert_eq!(integer(text.as_bytes()), by_std);
            prop_assert_eq!(decimal(text.as_bytes()), text.parse::<f32>().ok());
        }
    }

    #[test]
    fn lines_across_buffers() {
        let mut bytes = b"head\r\n".to_vec();
        bytes.extend(vec![b'x'; 3 * BUFFER]);
        bytes.push(b'\n');
        for n in 0..BUFFER {
            bytes.extend(format!("{n}\n").bytes());
        }
        let all = lines(&bytes);
        assert_eq!(all.len(), 2 + BUFFER);
        assert_eq!(all[0], (1, b"head".to_vec()));
        assert_eq!(all[1].1.len(), 3 * BUFFER);
        for (n, (number, line)) in all[2..].iter().enumerate() {
            assert_eq!(*number, n as u64 + 3);
            assert_eq!(line, n.to_string().as_bytes());
        }
    }

    #[test]
    fn endless_line() {
        let reader = std::io::repeat(b'x');
        let endless = Input { file: "f".into(), reader: Box::new(reader) };
        let error = for_each_line(endless, |_, _| Ok(())).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("longer than"), "{cause}");
    }

    #[test]
    fn not_finite() {
        assert_eq!(decimal(b"nan"), None);
        assert_eq!(decimal(b"1e99"), None);
        assert_eq!(decimal(b"3.25"), Some(3.25));
    }
}
