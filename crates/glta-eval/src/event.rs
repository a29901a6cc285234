use crate::row::Row;

/// Progress of an [`Experiment`](crate::Experiment).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message for the user.
    Note(&'a str),
    /// Progress of some work. `total` is 0 if it is unknown.
    Work {
        /// The work, such as `LightGCN 1/4`.
        work: &'a str,
        /// Finished units.
        done: u64,
        /// Total number of units.
        total: u64,
        /// A message about the last unit.
        note: &'a str,
    },
    /// An event of a GLTA run.
    Run(&'a glta_align::Event),
    /// A system was measured.
    Row(&'a Row),
}

/// Receives the [`Event`]s of an experiment; every `FnMut(&Event) -> ControlFlow<()>` is one.
pub type Progress<'a> = dyn for<'e> glta_core::Progress<Event<'e>> + 'a;
