//! JSON documents and JSON lines, with file and line in every error.

use std::fmt;
use std::io::BufReader;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::html::clean;
use super::input::{Input, io_error};
use super::lines::{Fault, for_each_line, shown, utf8};
use super::python;
use crate::{Error, Result};

/// Parses a file that is one JSON document.
pub(crate) fn whole<T: DeserializeOwned>(input: Input<'_>) -> Result<T> {
    let Input { file, reader } = input;
    serde_json::from_reader(BufReader::with_capacity(256 << 10, reader)).map_err(|error| {
        if error.is_io() {
            return io_error(&file, error.into());
        }
        Error::Line { file, line: error.line() as u64, problem: error.to_string() }
    })
}

/// The entries of a JSON object, in the order of the file.
pub(crate) struct Entries<V>(pub(crate) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for InOrder<V> {
            type Value = Vec<(String, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(InOrder(PhantomData)).map(Self)
    }
}

/// An id that is a number in some files and a string in others.
#[derive(Debug, Default)]
pub(crate) struct RawId(pub(crate) String);

impl<'de> Deserialize<'de> for RawId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Id;

        impl Visitor<'_> for Id {
            type Value = String;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id (a string or an integer)")
            }

            fn visit_str<E>(self, id: &str) -> std::result::Result<String, E> {
                Ok(id.to_owned())
            }

            fn visit_u64<E>(self, id: u64) -> std::result::Result<String, E> {
                Ok(id.to_string())
            }

            fn visit_i64<E>(self, id: i64) -> std::result::Result<String, E> {
                Ok(id.to_string())
            }
        }

        deserializer.deserialize_any(Id).map(Self)
    }
}

/// Calls `each` for every line of a file of JSON objects, or of Python literals (Amazon's files of
/// 2014). Returns the number of lines.
pub(crate) fn for_each_record<T: DeserializeOwned>(
    input: Input<'_>,
    mut each: impl FnMut(T) -> Result<()>,
) -> Result<u64> {
    let mut records = 0;
    for_each_line(input, |_, line| {
        records += 1;
        Ok(each(parse_record(line)?)?)
    })?;
    Ok(records)
}

/// Parses a line that is a JSON object or a Python dict.
pub(crate) fn parse_record<T: DeserializeOwned>(line: &[u8]) -> std::result::Result<T, Fault> {
    let record = if line.starts_with(b"{'") || line.starts_with(b"{u'") {
        let value = python::parse(utf8(line)?)?;
        T::deserialize(value).map_err(|e| e.to_string())
    } else {
        serde_json::from_slice(line).map_err(|e| e.to_string())
    };
    record.map_err(|e| {
        let found = shown(line);
        Fault::Problem(format!("expected a JSON object ({e}), found `{found}`"))
    })
}

/// Texts of a value that may be a string, a list of strings, nested lists, or missing.
#[derive(Debug, Default)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Flat;

        impl<'de> Visitor<'de> for Flat {
            type Value = Vec<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(vec![text.to_owned()])
            }

            fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
                Ok(Vec::new())
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(Texts(more)) = list.next_element()? {
                    texts.extend(more);
                }
                Ok(texts)
            }
        }

        deserializer.deserialize_any(Flat).map(Self)
    }
}

impl Texts {
    /// Returns the cleaned, non-empty texts, joined by `separator`.
    pub(crate) fn joined(&self, separator: &str) -> String {
        self.cleaned().join(separator)
    }

    /// Returns the cleaned, non-empty texts without repetitions.
    pub(crate) fn cleaned(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        for text in self.0.iter().map(|text| clean(text)) {
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }
}
