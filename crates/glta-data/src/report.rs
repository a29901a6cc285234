use std::fmt;

use serde::{Deserialize, Serialize};

/// A report on the reading and filtering of a data set: which formats were recognised, what was
/// omitted, merged or missing, and what each filter kept. The report is the entry `data` of
/// `metrics.json`.
///
/// ```
/// use glta_data::{Dataset, Interaction};
///
/// let rows = [("ann", "tea"), ("ann", "tea"), ("bob", "tea")];
/// let rows = rows.map(|(user, item)| Interaction::new(user, item));
/// let data = Dataset::from_interactions("shop", rows, vec![])?;
/// let note = &data.report().notes[0];
/// assert_eq!((note.kind.as_str(), note.count, note.of), ("repeated_pairs", 1, Some(3)));
/// assert_eq!(note.examples, ["ann tea"]);
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Report {
    /// Files in the order in which they were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileReport>,
    /// Notes about rows and values that were omitted, merged, missing or doubtful.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// Filters in the order in which they were applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterReport>,
}

/// The name, layout and size of a file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileReport {
    /// Name of the file without folders.
    pub file: String,
    /// Layout of the file, recognised or configured.
    pub layout: String,
    /// Number of rows or records, without header, comments and empty lines.
    pub rows: u64,
}

/// A note about something that a user of the data should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Note {
    /// Kind of the note, such as `repeated_pairs` or `items_without_metadata`.
    pub kind: String,
    /// Number of rows, items or ids that the note is about.
    pub count: u64,
    /// Total number of which `count` is a part, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Text of the note, without the examples.
    pub message: String,
    /// First few examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// Effect of a filter on the size of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FilterReport {
    /// Name of the filter with its values, such as `k_core(5, 5)`.
    pub rule: String,
    /// Numbers of users, items and interactions before the filter.
    pub before: [usize; 3],
    /// Numbers of users, items and interactions after the filter.
    pub after: [usize; 3],
}

/// Maximum number of examples in a note.
pub(crate) const EXAMPLES: usize = 3;

impl Note {
    /// Creates a note with the message `count of … text`.
    pub(crate) fn new(kind: &str, count: u64, of: Option<u64>, text: &str) -> Self {
        let share = of.map_or(String::new(), |of| format!(" of {of}"));
        Self {
            kind: kind.into(),
            count,
            of,
            message: format!("{count}{share} {text}"),
            examples: Vec::new(),
        }
    }

    /// Returns the note with up to three examples.
    pub(crate) fn examples(mut self, examples: impl IntoIterator<Item = String>) -> Self {
        self.examples.extend(examples.into_iter().take(EXAMPLES));
        self
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.examples.as_slice() {
            [] => Ok(()),
            examples => write!(f, ", such as {}", examples.join(", ")),
        }
    }
}

impl FilterReport {
    /// Returns the message for a filter that removes everything.
    pub(crate) fn emptied(&self) -> String {
        let [users, items, interactions] = self.before;
        format!(
            "{} removes all of {users} users, {items} items and {interactions} interactions",
            self.rule
        )
    }
}

impl Report {
    /// Returns the first note of a kind, if there is one.
    pub fn note(&self, kind: &str) -> Option<&Note> {
        self.notes.iter().find(|note| note.kind == kind)
    }

    /// Adds a note and emits it as a warning.
    pub(crate) fn warn(&mut self, dataset: &str, note: Note) {
        tracing::warn!("{dataset}: {note}");
        self.notes.push(note);
    }

    /// Adds a note and emits it as an information event.
    #[cfg(feature = "readers")]
    pub(crate) fn say(&mut self, dataset: &str, note: Note) {
        tracing::info!("{dataset}: {note}");
        self.notes.push(note);
    }
}
