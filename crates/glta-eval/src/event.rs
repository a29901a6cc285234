use crate::row::Row;

/// A progress event of an [`Experiment`](crate::Experiment).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message to show to the user.
    Note(&'a str),
    /// Progress of one computation.
    Work {
        /// Name of the computation, such as `LightGCN 1/4`.
        work: &'a str,
        /// Number of finished units, such as epochs.
        done: u64,
        /// Total number of units; 0 if it is unknown.
        total: u64,
        /// A message about the last finished unit; may be empty.
        note: &'a str,
    },
    /// An event of a GLTA run.
    Run(&'a glta_align::Event),
    /// The row of a system that was measured.
    Row(&'a Row),
}

/// A progress callback: any `FnMut(&Event) -> ControlFlow<()>`. It cancels the experiment by
/// returning `Break`.
pub type Progress<'a> = dyn for<'e> glta_core::Progress<Event<'e>> + 'a;
