use crate::row::Row;

/// Progress of an [`Experiment`](crate::Experiment).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A remark that is worth a line.
    Note(&'a str),
    /// Work moves on. `total` is 0 where it is not known.
    Work {
        /// What is done, such as `LightGCN 1/4`.
        work: &'a str,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What is worth saying about the last unit.
        note: &'a str,
    },
    /// A GLTA run reports.
    Run(&'a glta_align::Event),
    /// A system was measured.
    Row(&'a Row),
}

/// Receives the [`Event`]s of an experiment; every `FnMut(&Event) -> ControlFlow<()>` is one.
pub type Progress<'a> = dyn for<'e> glta_core::Progress<Event<'e>> + 'a;
