use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{Error, Result};

/// A map from raw ids to dense ids, which numbers raw ids in the order of their first appearance.
///
/// Decimal numbers are the most frequent kind of id. They have a fast path: a table for small
/// numbers and a hash of the integer for large ones. Only a new id allocates a string.
#[derive(Debug)]
pub(crate) struct IdMap {
    /// Kind of the ids in messages, `"user"` or `"item"`.
    kind: &'static str,
    raw: IndexSet<String, FxBuildHasher>,
    /// Dense id + 1 of each small number. The entry is 0 if the number is new or in `large`.
    small: Vec<u32>,
    large: FxHashMap<u64, u32>,
}

/// Maximum number of entries of the table of small numbers, which then takes 16 MB.
const SMALL: u64 = 1 << 22;
/// Maximum number of table entries per id. It limits the table if the ids are sparse.
const SPARSEST: u64 = 64;

impl IdMap {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, raw: IndexSet::default(), small: Vec::new(), large: FxHashMap::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Returns the dense id of a raw id. A new raw id gets the next dense id.
    pub(crate) fn intern(&mut self, raw: &str) -> Result<u32> {
        match canonical_number(raw.as_bytes()) {
            Some(number) => match self.number(number) {
                Some(id) => Ok(id),
                None => self.insert(raw, Some(number)),
            },
            None => match self.raw.get_index_of(raw) {
                Some(id) => Ok(id as u32),
                None => self.insert(raw, None),
            },
        }
    }

    /// Returns the dense id of a known decimal number, without a check for UTF-8. Nearly all lines
    /// of a ratings file take this path.
    #[cfg(feature = "readers")]
    #[inline]
    pub(crate) fn get_number(&self, raw: &[u8]) -> Option<u32> {
        self.number(canonical_number(raw)?)
    }

    /// Returns the dense id of a known raw id.
    pub(crate) fn get(&self, raw: &str) -> Option<u32> {
        match canonical_number(raw.as_bytes()) {
            Some(number) => self.number(number),
            None => self.raw.get_index_of(raw).map(|id| id as u32),
        }
    }

    /// Returns the raw id of a dense id, and an empty text for an unknown one.
    #[cfg(feature = "readers")]
    pub(crate) fn raw(&self, id: u32) -> &str {
        self.raw.get_index(id as usize).map_or("", String::as_str)
    }

    /// Returns pairs of raw ids that differ only by leading zeros or a `.0` at the end.
    pub(crate) fn alike(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.raw.iter().map(|raw| (shortest(raw), raw.as_str()));
        all.filter(|&(short, raw)| short != raw && self.get(short).is_some())
    }

    /// Returns all raw ids in the order of their dense ids.
    pub(crate) fn into_raw(self) -> Vec<String> {
        self.raw.into_iter().collect()
    }

    #[inline]
    fn number(&self, number: u64) -> Option<u32> {
        match usize::try_from(number).ok().and_then(|number| self.small.get(number)) {
            Some(&id) if id > 0 => Some(id - 1),
            _ => self.large.get(&number).copied(),
        }
    }

    #[cold]
    fn insert(&mut self, raw: &str, number: Option<u64>) -> Result<u32> {
        if number.is_none() && is_missing(raw) {
            return Err(Error::MissingId { kind: self.kind, raw: raw.to_owned() });
        }
        let len = self.raw.len();
        // The table stores id + 1, so the maximum id is one less.
        let id = u32::try_from(len)
            .ok()
            .filter(|&id| id < u32::MAX - 1)
            .ok_or(Error::TooMany { kind: self.kind, len })?;
        self.raw.insert(raw.to_owned());
        match number {
            Some(number) if number < SMALL && number < SPARSEST * (len as u64 + 1024) => {
                let at = number as usize;
                if at >= self.small.len() {
                    self.small.resize(at + 1, 0);
                }
                self.small[at] = id + 1;
            }
            Some(number) => {
                self.large.insert(number, id);
            }
            None => {}
        }
        Ok(id)
    }
}

/// Returns whether a text stands for a missing value: an empty text, `nan`, `NaT`, `None`, `null`
/// or `undefined` in any case, `NA`, `N/A`, `<NA>` or `\N`.
///
/// As an id, such a text would merge all users without an id into one user.
pub(crate) fn is_missing(raw: &str) -> bool {
    const WORDS: [&str; 5] = ["nan", "nat", "none", "null", "undefined"];
    let raw = raw.trim();
    raw.is_empty()
        || matches!(raw, "NA" | "N/A" | "<NA>" | "\\N")
        || WORDS.iter().any(|word| raw.eq_ignore_ascii_case(word))
}

/// Returns an id without leading zeros and without `.0` at its end.
pub(crate) fn shortest(raw: &str) -> &str {
    let raw = raw.strip_suffix(".0").unwrap_or(raw);
    let short = raw.trim_start_matches('0');
    if short.is_empty() { &raw[raw.len().saturating_sub(1)..] } else { short }
}

/// Returns the value of a decimal number of at most 19 digits without a leading zero. Returns
/// `None` for other texts, so `007` and `7` are different ids.
#[inline]
fn canonical_number(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() || raw.len() > 19 || (raw[0] == b'0' && raw.len() > 1) {
        return None;
    }
    let mut value = 0u64;
    for &byte in raw {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_numbered_by_first_appearance(
            raw in prop::collection::vec(
                prop_oneof!["[0-9]{1,2}", "[0-9]{7,21}", "[a-c]{1,2}", "[0-9a]{3}"], 0..200)
        ) {
            let mut map = IdMap::new("item");
            let mut plain: HashMap<String, u32> = HashMap::new();
            for id in &raw {
                let next = plain.len() as u32;
                let expected = *plain.entry(id.clone()).or_insert(next);
                prop_assert_eq!(map.intern(id).unwrap(), expected);
                prop_assert_eq!(map.get(id), Some(expected));
            }
            prop_assert_eq!(map.len(), plain.len());
            let raw = map.into_raw();
            for (id, &dense) in &plain {
                prop_assert_eq!(&raw[dense as usize], id);
            }
        }
    }

    #[test]
    fn unseen_ids() {
        let mut map = IdMap::new("user");
        map.intern("12").unwrap();
        map.intern("x").unwrap();
        for unseen in ["1", "012", "99999999999", "y", ""] {
            assert_eq!(map.get(unseen), None);
        }
    }

    #[test]
    fn texts_for_missing_values_are_recognised() {
        let mut map = IdMap::new("user");
        for missing in
            ["", " ", "nan", "NaN", "None", "NULL", "NaT", "<NA>", "NA", "\\N", "undefined"]
        {
            let error = map.intern(missing).unwrap_err();
            assert!(matches!(error, Error::MissingId { kind: "user", .. }), "{missing}");
        }
        for id in ["Nancy", "na", "0", "none of them", "-"] {
            map.intern(id).unwrap();
        }
        assert_eq!(map.len(), 5);
    }
}
