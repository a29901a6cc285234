/// State of a parser within a row of RFC 4180.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the start of a field.
    Start,
    /// In a field without quotes, where a quote is an ordinary character.
    Plain,
    /// In a quoted field, which may continue on the next line.
    Quoted,
    /// After a quote in a quoted field. The field ends here, or the quote is the first half of a
    /// doubled quote.
    Closed,
}

impl Place {
    /// Returns the state after the bytes of a line, or the position of an invalid byte.
    ///
    /// The parser of the crate `csv` accepts any text and guesses. This parser rejects characters
    /// after a closing quote, because usually the quotes are part of the text, or an earlier quote
    /// is missing.
    pub(crate) fn after(mut self, line: &[u8], separator: u8) -> Result<Self, usize> {
        for (at, &byte) in line.iter().enumerate() {
            self = match (self, byte) {
                (Self::Start, b'"') => Self::Quoted,
                (Self::Quoted, b'"') => Self::Closed,
                (Self::Quoted, _) => Self::Quoted,
                (Self::Closed, b'"') => Self::Quoted,
                (_, byte) if byte == separator => Self::Start,
                (Self::Closed, b' ') => Self::Closed,
                (Self::Closed, _) => return Err(at),
                _ => Self::Plain,
            };
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (line, expected) in [
            ("a,b", Ok(Place::Plain)),
            ("a,", Ok(Place::Start)),
            ("\"a,", Ok(Place::Quoted)),
            ("\"a,\"", Ok(Place::Closed)),
            ("\"a\"\"b\" ,5\" pipe", Ok(Place::Plain)),
            ("\"a\"b", Err(3)),
        ] {
            assert_eq!(Place::Start.after(line.as_bytes(), b','), expected, "{line}");
        }
    }
}
