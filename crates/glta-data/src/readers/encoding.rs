//! Converts UTF-16 files to UTF-8.

use std::io::{self, Cursor, ErrorKind, Read};

/// Number of bytes at the start of a file that determine its encoding.
const HEAD: usize = 64;
const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the text of `reader` as UTF-8 without a byte order mark, and the name of the encoding if
/// it is UTF-16 (the "Unicode text" of spreadsheets).
///
/// UTF-16 needs no byte order mark if its first characters are ASCII.
pub(crate) fn decode<'a>(
    mut reader: impl Read + 'a,
) -> io::Result<(Box<dyn Read + 'a>, Option<&'static str>)> {
    let mut head = [0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match reader.read(&mut head[len..]) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let (mark, big_endian) = match &head[..len] {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            let problem = "is written in UTF-32; save it as UTF-8";
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        [0xff, 0xfe, ..] => (2, Some(false)),
        [0xfe, 0xff, ..] => (2, Some(true)),
        head if head.starts_with(UTF_8_MARK) => (UTF_8_MARK.len() as u64, None),
        head => (0, without_mark(head)),
    };
    let mut start = Cursor::new(head).take(len as u64);
    io::copy(&mut start.by_ref().take(mark), &mut io::sink())?;
    let whole = start.chain(reader);
    Ok(match big_endian {
        None => (Box::new(whole), None),
        Some(big_endian) => {
            let name = if big_endian { "UTF-16 (big-endian)" } else { "UTF-16" };
            (Box::new(Utf16::new(whole, big_endian)), Some(name))
        }
    })
}

/// Recognises UTF-16 by ASCII characters of two bytes each. Returns true for the big-endian order,
/// and `None` if `head` is not recognised as UTF-16.
fn without_mark(head: &[u8]) -> Option<bool> {
    let pairs = head.chunks_exact(2);
    if pairs.len() < 2 {
        return None;
    }
    let all = |zero: usize| pairs.clone().all(|pair| pair[zero] == 0 && pair[1 - zero] != 0);
    if all(1) { Some(false) } else { all(0).then_some(true) }
}

/// A reader that decodes UTF-16 to UTF-8.
struct Utf16<R> {
    reader: R,
    big_endian: bool,
    raw: Vec<u8>,
    /// Number of bytes at the start of `raw` that are read but not decoded.
    filled: usize,
    text: Cursor<Vec<u8>>,
}

const BUFFER: usize = 64 << 10;

impl<R: Read> Utf16<R> {
    fn new(reader: R, big_endian: bool) -> Self {
        let text = Cursor::new(Vec::new());
        Self { reader, big_endian, raw: vec![0; BUFFER], filled: 0, text }
    }

    /// Decodes the next part. Returns false at the end of the file.
    fn advance(&mut self) -> io::Result<bool> {
        let got = self.reader.read(&mut self.raw[self.filled..])?;
        self.filled += got;
        let mut units: Vec<u16> = Vec::with_capacity(self.filled / 2);
        units.extend(self.raw[..self.filled].chunks_exact(2).map(|pair| {
            let pair = [pair[0], pair[1]];
            if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
        }));
        // The second half of a surrogate pair may still be unread.
        let cut = got > 0 && units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit));
        units.truncate(units.len() - usize::from(cut));
        let text = char::decode_utf16(units.iter().copied()).collect::<Result<String, _>>();
        let whole = 2 * units.len();
        if text.is_err() || (got == 0 && self.filled > whole) {
            let problem = "is not valid UTF-16; it may be truncated";
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        self.raw.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        self.text = Cursor::new(text.unwrap_or_default().into_bytes());
        Ok(got > 0)
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = self.text.read(out)?;
            if got > 0 || out.is_empty() || !self.advance()? {
                return Ok(got);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reader that returns a few bytes at a time.
    struct SlowReader<'a>(&'a [u8], usize);

    impl Read for SlowReader<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = out.len().min(self.1);
            self.0.read(&mut out[..len])
        }
    }

    fn decoded(bytes: &[u8], at_once: usize) -> io::Result<String> {
        let mut text = String::new();
        decode(SlowReader(bytes, at_once))?.0.read_to_string(&mut text)?;
        Ok(text)
    }

    fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
        let bytes = |unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    proptest! {
        #[test]
        fn every_text_in_every_encoding(text in "\\PC{0,90}", at_once in 1usize..9) {
            prop_assume!(!text.starts_with('\u{feff}'));
            let marked = format!("\u{feff}{text}");
            prop_assert_eq!(&decoded(marked.as_bytes(), at_once).unwrap(), &text);
            prop_assert_eq!(&decoded(text.as_bytes(), at_once).unwrap(), &text);
            for big_endian in [false, true] {
                let bytes = utf16(&marked, big_endian);
                prop_assert_eq!(&decoded(&bytes, at_once).unwrap(), &text);
            }
        }

        #[test]
        fn decoding_terminates_for_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&bytes, 7);
        }
    }

    #[test]
    fn ascii_needs_no_byte_order_mark_and_damage_is_an_error() {
        let long = "user,item\n".repeat(20_000);
        for big_endian in [false, true] {
            assert_eq!(decoded(&utf16(&long, big_endian), 1 << 20).unwrap(), long);
        }
        for damaged in [&b"\xff\xfea\0b"[..], b"\xff\xfe\0\xd8a\0", b"\xff\xfea\0\0\xd8"] {
            assert!(decoded(damaged, 2).unwrap_err().to_string().contains("not valid UTF-16"));
        }
        assert!(decoded(b"\xff\xfe\0\0a\0\0\0", 3).unwrap_err().to_string().contains("UTF-32"));
    }
}
