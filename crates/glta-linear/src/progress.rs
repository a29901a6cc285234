use glta_core::{Progress, report};

use crate::Result;

/// The current work of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinearStage {
    /// Text neighbours are searched.
    TextNeighbours,
    /// Co-occurring items are counted.
    CoOccurrences,
    /// Columns of the weights are solved, once per setting.
    Columns,
    /// A setting is measured on validation users.
    Measure,
    /// The temperature is fitted.
    Temperature,
}

/// The progress of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearStep {
    /// The current work.
    pub stage: LinearStage,
    /// Finished items, users, or columns of all settings.
    pub done: u64,
    /// Total number, which may not be reached.
    pub total: u64,
}

/// Reports stages.
pub(crate) struct Reporter<'a> {
    pub(crate) progress: &'a mut dyn Progress<LinearStep>,
    /// Finished columns of the settings so far, and the total number.
    pub(crate) columns: (u64, u64),
}

impl Reporter<'_> {
    pub(crate) fn new(progress: &mut dyn Progress<LinearStep>) -> Reporter<'_> {
        Reporter { progress, columns: (0, 0) }
    }

    pub(crate) fn stage(&mut self, stage: LinearStage, done: u64, total: u64) -> Result<()> {
        Ok(report(self.progress, &LinearStep { stage, done, total })?)
    }

    /// Reports `done` columns of the current setting.
    pub(crate) fn solved(&mut self, done: usize) -> Result<()> {
        let (before, total) = self.columns;
        self.stage(LinearStage::Columns, before + done as u64, total.max(before + done as u64))
    }
}
