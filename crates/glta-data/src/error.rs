use std::path::PathBuf;

use thiserror::Error;

/// Errors of reading, filtering and splitting data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A user or item id is out of range.
    #[error("{kind} id {id} is out of range: there are {len} {kind}s (ids 0..{len})")]
    IdOutOfRange {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The invalid id.
        id: u32,
        /// Number of ids.
        len: usize,
    },
    /// More users or items than a `u32` id can name.
    #[error("{len} {kind}s are too many for 32-bit ids")]
    TooMany {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The requested number.
        len: usize,
    },
    /// Columns of one table have different lengths.
    #[error("column `{column}` has {got} rows, expected {expected}")]
    ColumnLength {
        /// Name of the column.
        column: &'static str,
        /// Number of rows in the other columns.
        expected: usize,
        /// Number of rows in this column.
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
        /// What is wrong and which values are valid.
        problem: String,
    },
    /// A step needs a column that the data set lacks.
    #[error("data set `{dataset}` has no {column}, which {needed_by} needs")]
    MissingColumn {
        /// Name of the data set.
        dataset: String,
        /// `"ratings"` or `"timestamps"`.
        column: &'static str,
        /// The step that needs it.
        needed_by: &'static str,
    },
    /// Two items have the same raw id.
    #[error("item id `{0}` occurs twice")]
    DuplicateItem(String),
    /// A file could not be read: missing, unreadable, truncated or corrupt.
    #[error("cannot read {file}")]
    Io {
        /// The file; a file in an archive is prefixed by `archive.zip/`.
        file: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A line of a file does not have the expected format.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// Line number, from 1.
        line: u64,
        /// The expected format and the actual content.
        problem: String,
    },
    /// A value of a file that is a single document, without line numbers.
    #[error("{file}: {problem}")]
    Value {
        /// The file.
        file: String,
        /// The expected format and the actual content.
        problem: String,
    },
    /// A file that the data set needs was not found.
    #[error("{} has no {expected}{hint}", folder.display())]
    MissingFile {
        /// The folder or zip archive that was searched.
        folder: PathBuf,
        /// The names that were searched for.
        expected: String,
        /// What to do; empty, or starting with a separator.
        hint: String,
    },
    /// An id is a text that stands for a missing value.
    #[error("the {kind} id is missing (`{raw}`)")]
    MissingId {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The text.
        raw: String,
    },
    /// No record of the metadata is about an item of the interactions.
    #[error("{0}")]
    NothingJoins(String),
    /// A filter removed every interaction.
    #[error("data set `{dataset}`: {rule}; choose a weaker filter")]
    Emptied {
        /// Name of the data set.
        dataset: String,
        /// The filter, and the size of the data before it.
        rule: String,
    },
    /// A file is well-formed but has no interactions.
    #[error("{0} has no interactions")]
    Empty(String),
}

/// Result with this crate's [`Error`](enum@Error).
pub type Result<T> = std::result::Result<T, Error>;
