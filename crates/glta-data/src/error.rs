use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong while data is read, filtered or split.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A user or item id lies outside the declared range.
    #[error("{kind} id {id} is out of range: there are {len} {kind}s (ids 0..{len})")]
    IdOutOfRange {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The offending id.
        id: u32,
        /// How many ids there are.
        len: usize,
    },
    /// More users or items than a `u32` id can name.
    #[error("{len} {kind}s do not fit into 32-bit ids")]
    TooMany {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// The requested count.
        len: usize,
    },
    /// Columns of one table have different lengths.
    #[error("column `{column}` has {got} rows, expected {expected}")]
    ColumnLength {
        /// Name of the column.
        column: &'static str,
        /// Rows of the other columns.
        expected: usize,
        /// Rows of this one.
        got: usize,
    },
    /// Arrays that are not a compressed sparse row matrix.
    #[error("not a compressed sparse row matrix: {0}")]
    BadCsr(String),
    /// A setting has a value that cannot be used.
    #[error("setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A step needs a column that the data set does not have.
    #[error("data set `{dataset}` has no {column}, which {needed_by} needs")]
    MissingColumn {
        /// Name of the data set.
        dataset: String,
        /// `"ratings"` or `"timestamps"`.
        column: &'static str,
        /// The step.
        needed_by: &'static str,
    },
    /// Two items carry the same raw id.
    #[error("item id `{0}` is given twice")]
    DuplicateItem(String),
    /// Reading a file failed: absent, unreadable, truncated or corrupt.
    #[error("cannot read {file}")]
    Io {
        /// The file, with `archive.zip/` before the name of a zipped one.
        file: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A line of a file is not what its format says.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// Line number, from 1.
        line: u64,
        /// What was expected and what is there.
        problem: String,
    },
    /// A value in a file that is one document, whose lines are not counted.
    #[error("{file}: {problem}")]
    Value {
        /// The file.
        file: String,
        /// What was expected and what is there.
        problem: String,
    },
    /// A file that the data set needs is not where it should be.
    #[error("{} has no {expected}{hint}", folder.display())]
    MissingFile {
        /// Folder or zip archive that was searched.
        folder: PathBuf,
        /// The names that were looked for.
        expected: String,
        /// What to do, empty or starting with a separator.
        hint: String,
    },
    /// A text that stands for a missing value in the place of an id.
    #[error("the {kind} id is missing (`{raw}`)")]
    MissingId {
        /// `"user"` or `"item"`.
        kind: &'static str,
        /// What is there.
        raw: String,
    },
    /// Metadata of which not one record is about an item of the interactions.
    #[error("{0}")]
    NothingJoins(String),
    /// A filter dropped every interaction.
    #[error("data set `{dataset}`: {rule}; choose a weaker filter")]
    Emptied {
        /// Name of the data set.
        dataset: String,
        /// The filter, and how much there was before it.
        rule: String,
    },
    /// A file is well-formed but holds no interaction.
    #[error("{0} holds no interactions")]
    Empty(String),
}

/// Result with this crate's [`Error`](enum@Error).
pub type Result<T> = std::result::Result<T, Error>;
