//! Reads JSON files of a checkpoint, with the file and the key in each error.

use std::path::Path;

use serde_json::Value;

use crate::damage::recognise;
use crate::error::{Error, Result};

/// A JSON object.
pub(crate) type Object = serde_json::Map<String, Value>;

/// Reads the JSON object in a file.
pub(crate) fn read_object(path: &Path) -> Result<Object> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    parse_object(path, &bytes)
}

/// Reads the JSON object in a file; returns `None` if the file does not exist.
pub(crate) fn read_object_if_any(path: &Path) -> Result<Option<Object>> {
    match std::fs::read(path) {
        Ok(bytes) => parse_object(path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

pub(crate) fn parse_object(path: &Path, bytes: &[u8]) -> Result<Object> {
    // Some editors write a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => match object.get("error") {
            Some(Value::String(message)) if object.len() <= 3 => Err(Error::json(
                path,
                format!("this is a server's message, {message:?}; download the file again"),
            )),
            _ => Ok(object),
        },
        Ok(_) => Err(Error::json(path, "expected an object")),
        Err(error) => Err(Error::json(path, syntax_problem(bytes, &error))),
    }
}

/// Describes the problem of a file that is not valid JSON.
pub(crate) fn syntax_problem(bytes: &[u8], error: &serde_json::Error) -> String {
    match recognise(bytes) {
        Some(what) => what,
        None if error.is_eof() => format!(
            "the file ends too early, after {} bytes ({error}): an incomplete download; fetch it \
             again",
            bytes.len()
        ),
        None => error.to_string(),
    }
}

/// Typed access to a JSON object; `null` counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) path: &'a Path,
    pub(crate) object: &'a Object,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn invalid(&self, key: &str, expected: &str) -> Error {
        Error::json(self.path, format!("`{key}` is not {expected}"))
    }

    pub(crate) fn unsupported(&self, what: impl AsRef<str>, supported: &'static str) -> Error {
        let what = format!("{} in {}", what.as_ref(), self.path.display());
        Error::Unsupported { what, supported }
    }

    pub(crate) fn usize(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.invalid(key, "a whole number"))
    }

    pub(crate) fn required(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| Error::json(self.path, format!("`{key}` is missing")))
    }

    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value.as_f64().map(Some).ok_or_else(|| self.invalid(key, "a number"))
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(key, "true or false"))
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, "a string"))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let object = value.as_object().ok_or_else(|| self.invalid(key, "an object"))?;
        Ok(Some(Fields { path: self.path, object }))
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let all = value.as_array().map(|all| all.iter().map(Value::as_str).collect());
        let strings: Option<Vec<&str>> = all.flatten();
        strings.map(Some).ok_or_else(|| self.invalid(key, "a list of strings"))
    }

    /// Reads a token id or a list of ids; returns `None` if the key is missing.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids: Option<Vec<u32>> = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.map(Some).ok_or_else(|| self.invalid(key, "a token id"))
    }
}
