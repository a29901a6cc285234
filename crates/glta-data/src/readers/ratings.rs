//! The row format all MovieLens generations share, with different separators.

use super::input::Input;
use super::lines::{Fault, decimal, expected, for_each_line, integer, utf8};
use crate::dataset::Collector;
use crate::ids::IdMap;
use crate::{Error, Result};

/// How a line of a ratings file is divided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RatingsFormat {
    /// Between fields; one or two bytes.
    pub(crate) separator: &'static [u8],
    /// The first line, where there is a header.
    pub(crate) header: Option<&'static str>,
    /// The form of a line, for messages.
    pub(crate) form: &'static str,
    /// Whether rating and time follow the two ids.
    pub(crate) rated: bool,
}

/// Reads `user, item, rating, time` lines (or `user, item`) into a collector.
pub(crate) fn read_ratings(input: Input<'_>, format: RatingsFormat) -> Result<Collector> {
    let mut collector = Collector::new(format.rated, format.rated);
    let file = input.file.clone();
    for_each_line(input, |number, line| {
        if number == 1
            && let Some(header) = format.header
        {
            return if line == header.as_bytes() {
                Ok(())
            } else {
                Err(expected(&format!("the header `{header}`"), line))
            };
        }
        let bad = || expected(format.form, line);
        let mut rest = line;
        let user = cut(&mut rest, format.separator).ok_or_else(bad)?;
        let (item, rating, time) = if format.rated {
            let item = cut(&mut rest, format.separator).ok_or_else(bad)?;
            let rating = cut(&mut rest, format.separator).ok_or_else(bad)?;
            let rating = decimal(rating).ok_or_else(bad)?;
            let time = integer(rest).ok_or_else(bad)?;
            (item, Some(rating), Some(time))
        } else {
            (rest, None, None)
        };
        let user = id(&mut collector.users, user, line, format.form)?;
        let item = id(&mut collector.items, item, line, format.form)?;
        collector.push_dense(user, item, rating, time);
        Ok(())
    })?;
    if collector.is_empty() {
        return Err(Error::Empty(file));
    }
    Ok(collector)
}

/// The field before the next separator, which is taken off.
#[inline]
fn cut<'a>(rest: &mut &'a [u8], separator: &[u8]) -> Option<&'a [u8]> {
    // Fields are a few bytes long: a plain loop beats a vectorised search.
    let at = rest.iter().position(|&b| b == separator[0])?;
    let field = &rest[..at];
    *rest = rest[at..].strip_prefix(separator)?;
    Some(field)
}

/// The dense id of a raw one; MovieLens ids are positive 32-bit integers.
#[inline]
fn id(ids: &mut IdMap, raw: &[u8], line: &[u8], form: &str) -> std::result::Result<u32, Fault> {
    if let Some(id) = ids.get_number(raw) {
        return Ok(id);
    }
    if integer(raw).is_none_or(|id| !(0..=i64::from(u32::MAX)).contains(&id)) {
        return Err(expected(&format!("{form} with integer ids below 2³²"), line));
    }
    Ok(ids.intern(utf8(raw)?)?)
}
