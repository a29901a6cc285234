//! JSON documents and JSON lines, with file and line in every error.

use super::input::{Input, io_error};
use crate::{Error, Result};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::io::BufReader;
use std::marker::PhantomData;

/// A file that is one JSON document.
pub(crate) fn whole<T: DeserializeOwned>(input: Input<'_>) -> Result<T> {
    let Input { file, reader } = input;
    serde_json::from_reader(BufReader::with_capacity(256 << 10, reader)).map_err(|error| {
        if error.is_io() {
            return io_error(&file, error.into());
        }
        Error::Line { file, line: error.line() as u64, problem: error.to_string() }
    })
}

/// The entries of an object in the order of the file.
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

/// An id that some publishers write as a number and some as a string.
#[derive(Debug)]
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
        }

        deserializer.deserialize_any(Id).map(Self)
    }
}
