use glta_core::{Progress, report};

use crate::Result;

/// A stage of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinearStage {
    /// The search for text neighbours.
    TextNeighbours,
    /// The counting of co-occurring items.
    CoOccurrences,
    /// The computation of the weights, column by column, once per setting.
    Columns,
    /// The measurement of a setting on validation users.
    Measure,
    /// The fit of the temperature.
    Temperature,
}

/// The progress of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearStep {
    /// The current stage.
    pub stage: LinearStage,
    /// Number of finished items, users, or columns of all settings.
    pub done: u64,
    /// Total number of items, users or columns. The fit may need fewer.
    pub total: u64,
}

/// A reporter of the stages of a fit.
pub(crate) struct Reporter<'a> {
    pub(crate) progress: &'a mut dyn Progress<LinearStep>,
    /// Number of finished columns of the earlier settings, and the total number.
    pub(crate) columns: (u64, u64),
}

impl Reporter<'_> {
    pub(crate) fn new(progress: &mut dyn Progress<LinearStep>) -> Reporter<'_> {
        Reporter { progress, columns: (0, 0) }
    }

    pub(crate) fn stage(&mut self, stage: LinearStage, done: u64, total: u64) -> Result<()> {
        Ok(report(self.progress, &LinearStep { stage, done, total })?)
    }

    /// Reports that `done` columns of the current setting are finished.
    pub(crate) fn solved(&mut self, done: usize) -> Result<()> {
        let (before, total) = self.columns;
        self.stage(LinearStage::Columns, before + done as u64, total.max(before + done as u64))
    }
}
