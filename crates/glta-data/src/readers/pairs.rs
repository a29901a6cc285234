use std::path::Path;

use super::input::{Input, open_file};
use super::layout;
use super::pairs_config::{MissingIds, PairsConfig, PairsLayout};
use super::table::{
    Column, ITEM, RATING, Row, TIME, Table, USER, bare_date, base_name, find, number, time,
};
use crate::dataset::Collector;
use crate::ids::{IdMap, is_missing};
use crate::report::{EXAMPLES, Note, Report};
use crate::{Dataset, Error, Interactions, Item, Result, Split};

/// Reads interactions without texts from one [`Table`].
///
/// Raw ids may be any text. They are compared as they are written (`007` is not `7`), except for
/// spaces around them. Users and items are numbered in the order of their first appearance. Columns
/// other than those of [`PairsConfig`] are not used. The name of the data set is that of the file
/// up to the first dot. An information event and [`Dataset::report`] say which format was
/// recognised.
///
/// ```
/// use glta_data::readers::{PairsConfig, pairs};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("orders.csv");
/// std::fs::write(&path, "product,customer,date\nmilk,ann,2024-02-01\ntea,ann,2024-02-02\n")?;
/// let orders = pairs(&path, &PairsConfig::default())?;
/// assert_eq!((orders.n_users(), orders.n_items()), (1, 2));
/// assert_eq!(orders.timestamps(), Some(&[1_706_745_600, 1_706_832_000][..]));
/// assert_eq!(
///     orders.report().files[0].layout,
///     "pairs of user `customer` and item `product`, time `date`, comma-separated, with a header"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error if the file is unreadable or has no interactions, if it is unclear whether its
/// rows are pairs or lists, if its rows contradict the settings or each other, if an id is missing
/// (see [`MissingIds`]), or if a rating or time is invalid. The message names the line and the
/// setting to change.
pub fn pairs(path: impl AsRef<Path>, config: &PairsConfig) -> Result<Dataset> {
    let path = path.as_ref();
    let collector = collect(open_file(path)?, config)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    collector.finish(name, |_, raw| Item::new(raw))
}

/// Reads a split that was published as two files with the same ids.
///
/// The data set has the interactions of both files. The validation part is empty, but
/// [`Split::with_validation`] can fill it. A pair that is in both files counts as training only.
/// The test file is read with the layout of the training file.
///
/// # Errors
/// Returns the errors of [`pairs`].
pub fn split_pairs(
    name: impl Into<String>,
    train: impl AsRef<Path>,
    test: impl AsRef<Path>,
    config: &PairsConfig,
) -> Result<(Dataset, Split)> {
    let mut collector = Collector::new(true, true);
    let layout = read(open_file(train.as_ref())?, config, &mut collector)?;
    let n_train = collector.columns.users.len();
    let checks = Checks { layout: Some(layout), ..Checks::default() };
    read_with(open_file(test.as_ref())?, config, &mut collector, checks)?;
    finish_split(name.into(), collector, n_train)
}

/// Returns the data set and its split. The first `n_train` rows are the training part, the others
/// the test part.
pub(crate) fn finish_split(
    name: String,
    mut collector: Collector,
    n_train: usize,
) -> Result<(Dataset, Split)> {
    let (n_users, n_items) = (collector.users.len(), collector.items.len());
    let (users, items) = (&collector.columns.users, &collector.columns.items);
    let matrix =
        |users: &[u32], items: &[u32]| Interactions::from_columns(n_users, n_items, users, items);
    let train = matrix(&users[..n_train], &items[..n_train])?;
    let whole_test = matrix(&users[n_train..], &items[n_train..])?;
    let test = whole_test.filter(|user, item| !train.contains(user, item));
    let both = whole_test.len() - test.len();
    if both > 0 {
        let text = "test pairs are also training pairs; they are left out of the test part";
        let note =
            Note::new("test_pairs_in_training", both as u64, Some(whole_test.len() as u64), text);
        let raw = |(user, item): (u32, u32)| {
            format!("{} {}", collector.users.raw(user), collector.items.raw(item))
        };
        let pairs = whole_test.iter().filter(|(user, item)| train.contains(*user, *item));
        let examples: Vec<String> = pairs.take(EXAMPLES).map(raw).collect();
        collector.report.warn(&name, note.examples(examples));
    }
    let valid = Interactions::empty(n_users, n_items)?;
    let split = Split { train, valid, test, cold_items: Vec::new() };
    Ok((collector.finish(name, |_, raw| Item::new(raw))?, split))
}

/// Reads the rows of one file.
pub(crate) fn collect(input: Input<'_>, config: &PairsConfig) -> Result<Collector> {
    let mut collector = Collector::new(true, true);
    read(input, config, &mut collector)?;
    Ok(collector)
}

/// Appends the rows of a file to the collector and returns their layout.
pub(crate) fn read(
    input: Input<'_>,
    config: &PairsConfig,
    collector: &mut Collector,
) -> Result<PairsLayout> {
    read_with(input, config, collector, Checks::default())
}

/// Requirements for a file in addition to its configuration.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checks {
    /// Layout of the other file of the split, if the configuration has none.
    pub(crate) layout: Option<PairsLayout>,
    /// Whether the ids must be integers.
    pub(crate) integers: bool,
}

/// Appends the rows of a file like [`read`], with further checks.
pub(crate) fn read_with(
    input: Input<'_>,
    config: &PairsConfig,
    collector: &mut Collector,
    checks: Checks,
) -> Result<PairsLayout> {
    config.validate()?;
    let mut table = Table::new(input, &config.table)?;
    if table.width() == 0 {
        return Err(Error::Empty(table.file().to_owned()));
    }
    let layout = match config.layout.or(checks.layout) {
        Some(layout) => layout,
        None => layout::of(&table, config)?,
    };
    let before = collector.columns.users.len();
    let mut missing = Missing { rule: config.missing_ids, rows: 0, empty: 0, examples: Vec::new() };
    let name = match layout {
        PairsLayout::Lists => {
            lists(&mut table, config, collector, &mut missing)?;
            "lists".to_owned()
        }
        PairsLayout::Pairs => {
            let columns = Columns::of(&table, config, &mut collector.report)?;
            let columns = Columns { integers: checks.integers, ..columns };
            rows(&mut table, &columns, collector, &mut missing)?;
            format!("pairs{}", columns.described(&table))
        }
    };
    let file = base_name(table.file());
    let counts = table.counts();
    let report = table.report(&name);
    tracing::info!("{file}: read as {}, {} rows", report.layout, report.rows);
    collector.report.files.push(report);
    for (kind, count, text) in [
        ("empty_rows", missing.empty, "rows have only empty fields; they are left out"),
        ("comments", counts.comments, "lines are comments; they are left out"),
        ("repeated_headers", counts.headers, "rows repeat the header; they are left out"),
    ] {
        if count > 0 {
            collector.report.say(&file, Note::new(kind, count, None, text));
        }
    }
    if missing.rows > 0 {
        let text = "rows have no user or no item; they are left out";
        let note = Note::new("rows_without_id", missing.rows, Some(counts.rows), text);
        collector.report.warn(&file, note.examples(missing.examples));
    }
    if collector.columns.users.len() == before {
        if missing.rows > 0 {
            let of = counts.rows;
            let rule = format!("none of the {of} rows has both a user and an item");
            return Err(Error::Emptied { dataset: file, rule });
        }
        return Err(Error::Empty(table.file().to_owned()));
    }
    Ok(layout)
}

/// A count of the rows without a user or an item.
struct Missing {
    rule: MissingIds,
    rows: u64,
    /// Number of rows whose fields are all empty.
    empty: u64,
    examples: Vec<String>,
}

impl Missing {
    /// Counts a row with a missing id, or returns the error if the configuration refuses such rows.
    #[cold]
    fn take(&mut self, row: &Row<'_>, error: Error) -> Result<()> {
        if !matches!(error, Error::MissingId { .. }) {
            return Err(error);
        }
        if row.is_blank() {
            self.empty += 1;
            return Ok(());
        }
        if self.rule == MissingIds::Refuse {
            let problem =
                format!("{error}; correct the row, or leave such rows out (--missing-ids drop)");
            return Err(row.error(problem));
        }
        self.rows += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("line {}", row.line()));
        }
        Ok(())
    }
}

/// Indices of the columns of a table of pairs, and their form.
struct Columns {
    user: usize,
    item: usize,
    rating: Option<usize>,
    time: Option<usize>,
    /// Whether times are dates such as `20240131`.
    bare_dates: bool,
    /// Whether each row must have a rating, and whether it must have a time. The configuration
    /// requires a column by naming it.
    required: [bool; 2],
    /// Whether the ids must be integers.
    integers: bool,
}

impl Columns {
    fn of(table: &Table<'_>, config: &PairsConfig, report: &mut Report) -> Result<Self> {
        let named = |column: &Option<Column>| {
            column.as_ref().map(|column| table.column(column)).transpose()
        };
        let names = table.columns();
        let known = [USER, ITEM].map(|known| find(known, names));
        let (user, item) = match (named(&config.user)?, named(&config.item)?) {
            (Some(user), Some(item)) => (user, item),
            (user, item) => {
                let (by_user, by_item) = layout::by_position(table, known)?;
                (user.unwrap_or(by_user), item.unwrap_or(by_item))
            }
        };
        if user == item {
            return Err(
                table.malformed(format!("users and items are the same column {}", user + 1))
            );
        }
        let guessed = layout::rating_and_time(table, user, item);
        let rating = named(&config.rating)?.or_else(|| find(RATING, names)).or(guessed.0);
        let time = named(&config.time)?.or_else(|| find(TIME, names)).or(guessed.1);
        let fits = |column: usize, fits: fn(&str) -> bool| {
            let fields = table.sample().iter().filter_map(|row| row.get(column));
            let (good, bad): (Vec<&String>, Vec<&String>) =
                fields.filter(|field| !is_missing(field)).partition(|field| fits(field));
            good.len() >= bad.len()
        };
        // If a column was only recognised and its values are words, the column is ignored instead
        // of rejecting the file.
        let mut used = |column: Option<usize>, named: bool, is: fn(&str) -> bool, form: &str| {
            let column = column?;
            if named || fits(column, is) {
                return Some(column);
            }
            let mut values = table.sample().iter().filter_map(|row| row.get(column));
            let example = values.find(|value| !is_missing(value) && !is(value));
            let name = table.columns().get(column).map_or("", String::as_str);
            let text = format!("column `{name}` is not used: expected {form}");
            let note = Note { message: text, ..Note::new("unused_column", 1, None, "") };
            report.warn(&base_name(table.file()), note.examples(example.cloned()));
            None
        };
        let is_number = |field: &str| number(field.as_bytes()).is_some();
        let rating = used(rating, config.rating.is_some(), is_number, NUMBER_FORM);
        let is_time = |field: &str| time_of(field.as_bytes()).is_some();
        let time = used(time, config.time.is_some(), is_time, TIME_FORM);
        for column in [Some(user), Some(item), rating, time].into_iter().flatten() {
            let same = |name: &&String| names.get(column) == Some(*name) && !name.is_empty();
            if names.iter().filter(same).count() > 1 {
                let problem = format!(
                    "several columns have the name `{}`; choose one by its number, from 1 \
                     (--columns)",
                    names[column]
                );
                if ![&config.user, &config.item, &config.rating, &config.time]
                    .contains(&&Some(Column::Number(column + 1)))
                {
                    return Err(table.malformed(problem));
                }
            }
        }
        let dates = |field: &String| is_missing(field) || bare_date(field.as_bytes()).is_some();
        let bare = time.is_some_and(|column| {
            let mut fields = table.sample().iter().filter_map(|row| row.get(column)).peekable();
            fields.peek().is_some() && fields.all(dates)
        });
        let required = [config.rating.is_some(), config.time.is_some()];
        let integers = false;
        Ok(Self { user, item, rating, time, bare_dates: bare, required, integers })
    }

    /// Describes the columns in words, for the report and for messages.
    fn described(&self, table: &Table<'_>) -> String {
        let name = |column: usize| match table.columns().get(column) {
            Some(name) if !name.is_empty() => format!("`{name}`"),
            _ => format!("column {}", column + 1),
        };
        let mut text = format!(" of user {} and item {}", name(self.user), name(self.item));
        if let Some(rating) = self.rating {
            text += &format!(", rating {}", name(rating));
        }
        if let Some(time) = self.time {
            text += &format!(", time {}", name(time));
        }
        text
    }
}

use time as time_of;

fn rows(
    table: &mut Table<'_>,
    columns: &Columns,
    collector: &mut Collector,
    missing: &mut Missing,
) -> Result<()> {
    while let Some(row) = table.next_row()? {
        let (user, item) = (row.bytes(columns.user), row.bytes(columns.item));
        let known = (collector.users.get_number(user), collector.items.get_number(item));
        let (user, item) = match known {
            (Some(user), Some(item)) => (user, item),
            _ => match ids(collector, &row, columns) {
                Ok(ids) => ids,
                Err(error) => {
                    missing.take(&row, error)?;
                    continue;
                }
            },
        };
        let rating = match columns.rating {
            Some(column) => value(&row, column, number, columns.required[0], NUMBER_FORM)?,
            None => None,
        };
        let time = match columns.time {
            Some(column) if columns.bare_dates => {
                value(&row, column, bare_date, columns.required[1], "a date such as 20240131")?
            }
            Some(column) => value(&row, column, time_of, columns.required[1], TIME_FORM)?,
            None => None,
        };
        collector.push_dense(user, item, rating, time);
    }
    Ok(())
}

/// Returns the dense ids of a row. A row in which one id is missing adds no new user or item.
fn ids(collector: &mut Collector, row: &Row<'_>, columns: &Columns) -> Result<(u32, u32)> {
    let (user, item) = (row.text(columns.user)?, row.text(columns.item)?);
    for (kind, column, raw) in [("user", columns.user, user), ("item", columns.item, item)] {
        if is_missing(raw) {
            return Err(Error::MissingId { kind, raw: raw.to_owned() });
        }
        if row.is_compound(column) {
            return Err(row.error(format!(
                "the {kind} is a list or an object, `{raw}`; write its id with a separate key and \
                 name the key (--columns {kind}=KEY)"
            )));
        }
        if columns.integers && raw.parse::<u32>().is_err() {
            return Err(row.expected("integer ids below 2³²"));
        }
    }
    Ok((collector.users.intern(user)?, collector.items.intern(item)?))
}

/// Returns the dense id of a field.
#[inline]
fn id(ids: &mut IdMap, row: &Row<'_>, column: usize) -> Result<u32> {
    match ids.get_number(row.bytes(column)) {
        Some(id) => Ok(id),
        None => ids.intern(row.text(column)?),
    }
}

const NUMBER_FORM: &str = "a number";
const TIME_FORM: &str = "a time (seconds since 1970 or an ISO 8601 date)";

/// Parses the value of a field. Returns `None` if the value is missing and not required.
#[inline]
fn value<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&[u8]) -> Option<T>,
    required: bool,
    form: &str,
) -> Result<Option<T>> {
    let field = row.bytes(column);
    match parse(field) {
        Some(value) => Ok(Some(value)),
        None if !required && is_missing(row.text(column)?) => Ok(None),
        None => {
            let hint = if form == NUMBER_FORM && field.contains(&b',') {
                " (a comma before three digits may be a thousands separator)"
            } else {
                ""
            };
            Err(row.expected(&format!("{form}{hint} in column {}", column + 1)))
        }
    }
}

fn lists(
    table: &mut Table<'_>,
    config: &PairsConfig,
    collector: &mut Collector,
    missing: &mut Missing,
) -> Result<()> {
    table.allow_ragged();
    let mut repeats = layout::RepeatedUsers::new(config);
    while let Some(row) = table.next_row()? {
        let user = match id(&mut collector.users, &row, 0) {
            Ok(user) => user,
            Err(error) => {
                missing.take(&row, error)?;
                continue;
            }
        };
        repeats.check(&row, user)?;
        // The rows `5,` and `5` are both a user without items.
        let fields = (1..row.len()).rev().find(|&n| !row.bytes(n).is_empty()).map_or(1, |n| n + 1);
        for n in 1..fields {
            match id(&mut collector.items, &row, n) {
                Ok(item) => collector.push_dense(user, item, None, None),
                Err(error) => missing.take(&row, error)?,
            }
        }
    }
    repeats.report(collector, &base_name(table.file()));
    Ok(())
}
