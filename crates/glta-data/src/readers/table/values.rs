//! Parses the numbers and times of tables.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::readers::lines::{decimal, integer};

/// Parses a finite number, which may have a decimal comma. `1,200` is rejected, because it is
/// ambiguous.
#[inline]
pub(crate) fn number(field: &[u8]) -> Option<f32> {
    decimal(field).or_else(|| {
        let text = std::str::from_utf8(field).ok()?;
        let (whole, part) = text.split_once(',')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let signed = whole.strip_prefix('-').unwrap_or(whole);
        let thousands = part.len() == 3 && signed.len() < 4 && !signed.starts_with('0');
        if !digits(signed) || !digits(part) || thousands {
            return None;
        }
        decimal(format!("{whole}.{part}").as_bytes())
    })
}

/// Parses a time and returns the seconds since 1970. The time is a number of seconds, milliseconds,
/// microseconds or nanoseconds since 1970 (distinguished by their size), or an ISO 8601 date or
/// date and time. A time without an offset is in UTC.
#[inline]
pub(crate) fn time(field: &[u8]) -> Option<i64> {
    match integer(field) {
        Some(epoch) => Some(seconds(epoch)),
        None => written_time(field),
    }
}

/// Converts a time since 1970 in an unknown unit to seconds. A time after the year 5138 is
/// interpreted in the next finer unit.
fn seconds(epoch: i64) -> i64 {
    let unit = match epoch.unsigned_abs() {
        0..100_000_000_000 => 1,
        100_000_000_000..100_000_000_000_000 => 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000_000,
        _ => 1_000_000_000,
    };
    epoch.div_euclid(unit)
}

/// Returns the seconds since 1970 of a date without separators, such as `20240131`.
pub(crate) fn bare_date(field: &[u8]) -> Option<i64> {
    let number =
        integer(field).filter(|_| field.len() == 8 && matches!(field, [b'1' | b'2', ..]))?;
    let [year, month, day] = [number / 10_000, number / 100 % 100, number % 100];
    if !(1900..2200).contains(&year) {
        return None;
    }
    let date = Date::new(year as i16, month as i8, day as i8).ok()?;
    Some(date.at(0, 0, 0, 0).to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cold]
fn written_time(field: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(field).ok()?;
    if field.iter().all(|b| b.is_ascii_digit() || b"+-.eE".contains(b))
        && !text.get(1..)?.contains('-')
    {
        let epoch = text.parse::<f64>().ok().filter(|epoch| epoch.abs() < 9e18)?;
        return Some(seconds(epoch as i64));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_second());
    }
    let utc = |time: DateTime| Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second());
    // Databases write an offset of whole hours, or the name of UTC.
    if let Some(time) = text.strip_suffix(" UTC") {
        return utc(time.parse::<DateTime>().ok()?);
    }
    match text.parse::<DateTime>() {
        Ok(time) => utc(time),
        Err(_) => utc(text.parse::<Date>().ok()?.at(0, 0, 0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("881250949", Some(881_250_949)),
            ("881250949.0", Some(881_250_949)),
            ("8.81250949e8", Some(881_250_949)),
            ("1588687728923", Some(1_588_687_728)),
            ("1588687728923000", Some(1_588_687_728)),
            ("1588687728923000000", Some(1_588_687_728)),
            ("-86400", Some(-86_400)),
            ("0", Some(0)),
            ("1970-01-02", Some(86_400)),
            ("1970-01-01 00:01:00", Some(60)),
            ("1970-01-01T00:01:00", Some(60)),
            ("1970-01-01T00:01:00.250Z", Some(60)),
            ("1970-01-01T01:01:00+01:00", Some(60)),
            ("1970-01-01 00:01:00 UTC", Some(60)),
            ("01/02/2020", None),
            ("noon", None),
            ("", None),
            ("-", None),
            ("1e300", None),
            ("2020-13-01", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn bare_dates() {
        assert_eq!(bare_date(b"19700102"), Some(86_400));
        for no_date in ["19701302", "1970010", "881250949", "00000101", "-9700102", ""] {
            assert_eq!(bare_date(no_date.as_bytes()), None, "{no_date}");
        }
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("4,5", Some(4.5)),
            ("-4,5", Some(-4.5)),
            ("4.5", Some(4.5)),
            ("1,2,3", None),
            ("1,200", None),
            ("0,125", Some(0.125)),
            ("1,25", Some(1.25)),
            (",5", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
    }
}
