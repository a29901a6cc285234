use glta_core::{Progress, report};

use crate::Result;

/// Number of multiplications between two progress reports.
pub(crate) const REPORT_EVERY: f64 = 1e9;

/// Progress of an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Finished fraction of the operation, from 0 to 1.
    pub done: f64,
}

/// A counter of the multiplications of an operation, which reports progress.
pub(crate) struct Work<'a> {
    /// The progress callback; `None` for an operation that is too short to be cancelled.
    progress: Option<&'a mut dyn Progress<Step>>,
    done: f64,
    reported: f64,
    total: f64,
}

impl Work<'_> {
    /// Starts an operation of about `total` multiplications.
    pub(crate) fn new(progress: &mut dyn Progress<Step>, total: f64) -> Work<'_> {
        Work { progress: Some(progress), done: 0.0, reported: 0.0, total }
    }

    /// Creates a counter that reports nothing.
    pub(crate) fn silent() -> Work<'static> {
        Work { progress: None, done: 0.0, reported: 0.0, total: 0.0 }
    }

    /// Counts finished multiplications.
    pub(crate) fn add(&mut self, multiplications: f64) -> Result<()> {
        self.done += multiplications;
        if let Some(progress) = &mut self.progress
            && self.done - self.reported >= REPORT_EVERY
        {
            self.reported = self.done;
            report(*progress, &Step { done: (self.done / self.total).min(1.0) })?;
        }
        Ok(())
    }
}
