use std::path::PathBuf;

use thiserror::Error;

/// Errors of reading, filtering and splitting data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A user or item id is out of range.
    #[error("{kind} id {id} is out of range: there are {len} {kind}s (ids 0..{len})")]
    IdOutOfRange {
        /// Kind of the id, `"user"` or `"item"`.
        kind: &'static str,
        /// Id that is out of range.
        id: u32,
        /// Number of valid ids.
        len: usize,
    },
    /// There are more users or items than `u32` ids.
    #[error("{len} {kind}s are too many for 32-bit ids")]
    TooMany {
        /// Kind of the ids, `"user"` or `"item"`.
        kind: &'static str,
        /// Number of users or items.
        len: usize,
    },
    /// Columns of one table have different lengths.
    #[error("column `{column}` has {got} rows, expected {expected}")]
    ColumnLength {
        /// Name of the column that differs from the others.
        column: &'static str,
        /// Number of rows in the other columns.
        expected: usize,
        /// Number of rows in the column that differs.
        got: usize,
    },
    /// The arrays are not a valid compressed sparse row matrix.
    #[error("not a compressed sparse row matrix: {0}")]
    BadCsr(String),
    /// A setting has an invalid value.
    #[error("setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// Description of the problem and the valid values.
        problem: String,
    },
    /// The data set lacks a column that a step needs.
    #[error("data set `{dataset}` has no {column}, which {needed_by} needs")]
    MissingColumn {
        /// Name of the data set.
        dataset: String,
        /// Name of the missing column, `"ratings"` or `"timestamps"`.
        column: &'static str,
        /// Step that needs the column.
        needed_by: &'static str,
    },
    /// Two items have the same raw id.
    #[error("item id `{0}` occurs twice")]
    DuplicateItem(String),
    /// A file cannot be read: it is missing, unreadable, truncated or corrupt.
    #[error("cannot read {file}")]
    Io {
        /// Name of the file. For a file in an archive, it starts with the name of the archive, such
        /// as `archive.zip/`.
        file: String,
        /// Cause of the failure.
        #[source]
        source: std::io::Error,
    },
    /// A line of a file does not have the expected format.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// Name of the file.
        file: String,
        /// Line number, from 1.
        line: u64,
        /// Description of the expected format and the actual content.
        problem: String,
    },
    /// A value of a JSON document is invalid. Such a file has no meaningful line numbers.
    #[error("{file}: {problem}")]
    Value {
        /// Name of the file.
        file: String,
        /// Description of the expected format and the actual content.
        problem: String,
    },
    /// A file that the data set needs was not found.
    #[error("{} has no {expected}{hint}", folder.display())]
    MissingFile {
        /// Folder or zip archive that was searched.
        folder: PathBuf,
        /// Names that were searched for.
        expected: String,
        /// Advice on what to do, which is appended to the message. It is empty or starts with a
        /// separator.
        hint: String,
    },
    /// An id is a text that stands for a missing value, such as `nan`.
    #[error("the {kind} id is missing (`{raw}`)")]
    MissingId {
        /// Kind of the id, `"user"` or `"item"`.
        kind: &'static str,
        /// Text that was given as the id.
        raw: String,
    },
    /// No record of the metadata describes an item that has interactions.
    #[error("{0}")]
    NothingJoins(String),
    /// A filter removed every interaction.
    #[error("data set `{dataset}`: {rule}; choose a weaker filter")]
    Emptied {
        /// Name of the data set.
        dataset: String,
        /// Name of the filter, and the size of the data before it.
        rule: String,
    },
    /// A file is well-formed but has no interactions.
    #[error("{0} has no interactions")]
    Empty(String),
}

/// Result with this crate's [`Error`](enum@Error) as the error type.
pub type Result<T> = std::result::Result<T, Error>;
