//! Parses Python literals, the format of Amazon's files of 2014 and of lists inside strings of the
//! processed files.
//!
//! The parser limits the depth, because the files are external input. It returns
//! [`serde_json::Value`] like the JSON readers, and reports the position of an error.

use serde_json::{Map, Number, Value};

/// Parses one literal of dicts with string keys, lists, tuples, strings, numbers, `True`, `False`
/// and `None`. The error contains the problem and its position.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.error("nothing more"));
    }
    Ok(value)
}

/// Maximum depth of nested literals.
const DEEPEST: usize = 32;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, expected: &str) -> String {
        format!("not a Python literal: expected {expected} at byte {}", self.at + 1)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Skips white space, and then `byte` if it follows. Returns whether `byte` was skipped.
    fn take(&mut self, byte: u8) -> bool {
        self.blanks();
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(self.error("less nesting"));
        }
        self.blanks();
        match self.peek() {
            Some(b'{') => self.dict(depth),
            Some(b'[') => self.list(b']', depth),
            Some(b'(') => self.list(b')', depth),
            Some(b'\'' | b'"' | b'u' | b'U') => self.string().map(Value::String),
            _ => self.word(),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut map = Map::new();
        while !self.take(b'}') {
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.error("`:`"));
            }
            map.insert(key, self.value(depth + 1)?);
            if !self.take(b',') {
                if self.take(b'}') {
                    break;
                }
                return Err(self.error("`,` or `}`"));
            }
        }
        Ok(Value::Object(map))
    }

    fn list(&mut self, end: u8, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut values = Vec::new();
        while !self.take(end) {
            values.push(self.value(depth + 1)?);
            if !self.take(b',') {
                if self.take(end) {
                    break;
                }
                return Err(self.error("`,` or the end of the list"));
            }
        }
        Ok(Value::Array(values))
    }

    fn string(&mut self) -> Result<String, String> {
        self.blanks();
        if matches!(self.peek(), Some(b'u' | b'U')) {
            self.at += 1;
        }
        let quote = match self.peek() {
            Some(b'\'') => '\'',
            Some(b'"') => '"',
            _ => return Err(self.error("a string")),
        };
        self.at += 1;
        let mut string = String::new();
        let mut chars = self.text[self.at..].char_indices();
        while let Some((offset, c)) = chars.next() {
            if c == quote {
                self.at += offset + 1;
                return Ok(string);
            }
            if c != '\\' {
                string.push(c);
                continue;
            }
            let Some((_, escape)) = chars.next() else {
                break;
            };
            let mut code = |digits: usize| {
                let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                // Python 2 wrote characters above 2¹⁶ as two surrogates, which are not valid text.
                let code = (hex.len() == digits).then(|| u32::from_str_radix(&hex, 16).ok());
                let code = code.flatten();
                code.map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
            };
            let c = match escape {
                'n' => Some('\n'),
                't' => Some('\t'),
                'r' => Some('\r'),
                'x' => code(2),
                'u' => code(4),
                'U' => code(8),
                '\n' => continue,
                '\\' | '\'' | '"' => Some(escape),
                // Python keeps the backslash of unknown escapes.
                other => {
                    string.push('\\');
                    Some(other)
                }
            };
            match c {
                Some(c) => string.push(c),
                None => {
                    self.at += offset;
                    return Err(self.error("hexadecimal digits after the backslash"));
                }
            }
        }
        Err(self.error("the end of the string that starts here"))
    }

    fn word(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" | "nan" => Value::Null,
            _ => {
                let integer = word.parse::<i64>().ok().map(Number::from);
                let number =
                    integer.or_else(|| word.parse::<f64>().ok().and_then(Number::from_f64));
                Value::Number(number.ok_or_else(|| self.error("a value"))?)
            }
        };
        self.at += end;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn literals() {
        for (text, value) in [
            ("{}", json!({})),
            (" [1, -2.5, 1e3, 'a', \"b\", ] ", json!([1, -2.5, 1000.0, "a", "b"])),
            ("(1,)", json!([1])),
            (
                "{'a': True, u'b': None, 'c': {'d': [[]]}}",
                json!({"a": true, "b": null, "c": {"d": [[]]}}),
            ),
            (r#"'it\'s \x41\u00e9\n\\ \q "x"'"#, json!("it's Aé\n\\ \\q \"x\"")),
            ("\"it's\"", json!("it's")),
        ] {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn invalid_literals() {
        for text in [
            "",
            "{",
            "{'a'",
            "{'a': }",
            "{'a' 1}",
            "[1 2]",
            "'open",
            "'\\u00'",
            "__import__('os')",
            "1 2",
            "{1: 2}",
            "'\\",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn strings_round_trip(text in "\\PC{0,20}") {
            let literal = format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
            prop_assert_eq!(parse(&literal).unwrap(), Value::String(text));
        }

        #[test]
        fn never_panics(text in "[\\[\\]{}'\"\\\\:, a1ué-]{0,30}") {
            let _ = parse(&text);
        }
    }
}
