//! Recognises whether the rows of a file are pairs or lists, and which columns have users and
//! items.

use rustc_hash::FxHashSet;

use super::pairs_config::{PairsConfig, PairsLayout};
use super::table::{Row, Table, number, time};
use crate::Result;
use crate::dataset::Collector;
use crate::report::Note;

/// Returns the layout of a table, recognised from its first rows.
///
/// Lists have one row per user, of any length. Pairs have rows of the same length, and users may
/// have several rows.
pub(crate) fn of(table: &Table<'_>, config: &PairsConfig) -> Result<PairsLayout> {
    let named = config.user.is_some() || config.item.is_some();
    let sample = table.sample();
    let Some(first) = sample.first() else {
        return Ok(PairsLayout::Pairs);
    };
    if named || !table.columns().is_empty() {
        return Ok(PairsLayout::Pairs);
    }
    let mut users = FxHashSet::default();
    let repeated = sample.iter().any(|row| !users.insert(row.first().map(String::as_str)));
    let even = sample.iter().filter(|row| row.len() == first.len()).count();
    let ragged = even < sample.len();
    // In rows of two fields, a list of one item looks like a pair. If at most a tenth of the rows
    // have another length, the table has pairs, and reading rejects these rows.
    let pairs = repeated
        || sample.iter().all(|row| row.len() <= 2)
        || (ragged && sample.len() >= 10 && 10 * even >= 9 * sample.len())
        || (!ragged && looks_rated(sample));
    if pairs {
        Ok(PairsLayout::Pairs)
    } else if ragged || (first.len() > MOST_COLUMNS && are_numbers(sample)) {
        Ok(PairsLayout::Lists)
    } else {
        Err(table.malformed(format!(
            "the rows could be pairs of user and item with further columns, or lists of {} items, \
             because every row has another user and {} fields; name the layout (--layout pairs or \
             --layout lists)",
            first.len() - 1,
            first.len()
        )))
    }
}

/// Maximum number of columns of a table of pairs: user, item, rating and time.
const MOST_COLUMNS: usize = 4;

/// Returns whether all fields are integers. Published lists have integer ids.
fn are_numbers(sample: &[Vec<String>]) -> bool {
    let digits = |field: &String| field.bytes().all(|b| b.is_ascii_digit());
    sample.iter().flatten().all(|field| !field.is_empty() && digits(field))
}

/// Returns whether the last column contains times, or the third column ratings with decimals.
fn looks_rated(sample: &[Vec<String>]) -> bool {
    let all = |column: usize, holds: &dyn Fn(&str) -> bool| {
        sample.iter().all(|row| row.get(column).is_some_and(|field| holds(field)))
    };
    let last = sample[0].len() - 1;
    let decimal = |field: &str| number(field.as_bytes()).is_some() && field.contains(['.', ',']);
    all(last, &is_time) || all(2, &decimal)
}

/// Returns whether a field is a date or a number that stands for a time in or after 1990.
fn is_time(field: &str) -> bool {
    const YEAR_1990: i64 = 631_152_000;
    time(field.as_bytes()).is_some_and(|time| time >= YEAR_1990)
}

/// Index of a column, from 0.
type Index = usize;

/// Returns the columns of users and items: those with a `known` name, or else the first two. A
/// first column that only numbers the rows is skipped.
pub(crate) fn by_position(table: &Table<'_>, known: [Option<Index>; 2]) -> Result<(Index, Index)> {
    let names = table.columns();
    let problem = match known {
        [Some(user), Some(item)] => return Ok((user, item)),
        [None, None] if table.has_objects() => "no key is recognised as that of users or of items",
        [None, None] => {
            let from = usize::from(names.first().is_some_and(|name| is_row_number(name)));
            if table.width() >= from + 2 {
                return Ok(if items_first(table) { (1, 0) } else { (from, from + 1) });
            }
            return Err(table.malformed("expected columns of users and items".into()));
        }
        [None, Some(_)] => "no column is recognised as that of users",
        [Some(_), None] => "no column is recognised as that of items",
    };
    let problem = format!("{problem}; name both, for example by --columns user=NAME,item=NAME");
    Err(table.malformed(problem))
}

/// Returns whether the name of a column is one that pandas or R gives to row numbers.
fn is_row_number(name: &str) -> bool {
    name.is_empty() || name.starts_with("Unnamed:") || name.eq_ignore_ascii_case("index")
}

/// Returns whether the table is one of Amazon's files of ratings of 2018, where the item comes
/// first.
fn items_first(table: &Table<'_>) -> bool {
    let sample = table.sample();
    let upper = |id: &str| id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let is_item = |id: &str| id.len() == 10 && upper(id);
    let is_user = |id: &str| id.starts_with('A') && (11..=21).contains(&id.len()) && upper(id);
    table.columns().is_empty()
        && !sample.is_empty()
        && sample.iter().all(|row| row.len() > 1 && is_item(&row[0]) && is_user(&row[1]))
}

/// Returns the columns of ratings and times of a table of four columns without a header, such as
/// MovieLens' `u.data`.
pub(crate) fn rating_and_time(
    table: &Table<'_>,
    user: Index,
    item: Index,
) -> (Option<Index>, Option<Index>) {
    let sample = table.sample();
    let all = |column: usize, holds: fn(&str) -> bool| {
        sample.iter().all(|row| row.get(column).is_some_and(|field| holds(field)))
    };
    let fits = table.columns().is_empty()
        && table.width() == 4
        && user.max(item) == 1
        && all(2, |field| number(field.as_bytes()).is_some())
        && all(3, is_time);
    if fits { (Some(2), Some(3)) } else { (None, None) }
}

/// A count of the users that have several rows in a file of lists.
pub(crate) struct RepeatedUsers {
    /// Whether the layout was recognised instead of configured.
    guessed: bool,
    /// Line of each user's first row, or 0 for a user without a row so far.
    first: Vec<u64>,
    count: u64,
    examples: Vec<String>,
}

impl RepeatedUsers {
    pub(crate) fn new(config: &PairsConfig) -> Self {
        let guessed = config.layout.is_none();
        Self { guessed, first: Vec::new(), count: 0, examples: Vec::new() }
    }

    /// Counts a row of a user. If the layout was recognised, a second row of a user is an error.
    pub(crate) fn check(&mut self, row: &Row<'_>, user: u32) -> Result<()> {
        let user = user as usize;
        if user >= self.first.len() {
            self.first.resize(user + 1, 0);
        }
        let first = self.first[user];
        if first == 0 {
            self.first[user] = row.line();
            return Ok(());
        }
        let raw = String::from_utf8_lossy(row.bytes(0)).into_owned();
        if self.guessed {
            return Err(row.error(format!(
                "user `{raw}` is also on line {first}, but a file of lists has one line per user; \
                 choose the layout `pairs` or `lists`, for example by --layout"
            )));
        }
        self.count += 1;
        if self.examples.len() < crate::report::EXAMPLES {
            self.examples.push(format!("{raw} on lines {first} and {}", row.line()));
        }
        Ok(())
    }

    pub(crate) fn report(self, collector: &mut Collector, file: &str) {
        if self.count > 0 {
            let text = "rows belong to a user who has an earlier row; if these are not lists, \
                        choose --layout pairs";
            let note = Note::new("repeated_users", self.count, None, text);
            collector.report.warn(file, note.examples(self.examples));
        }
    }
}
