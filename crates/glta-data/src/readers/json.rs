//! JSON documents and JSON lines, with file and line in every error.

use super::input::{Input, io_error};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::io::BufReader;

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
