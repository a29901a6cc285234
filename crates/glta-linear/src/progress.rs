use glta_core::{Progress, report};

use crate::Result;

/// What a fit is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinearStage {
    /// Text neighbours of items are searched.
    TextNeighbours,
    /// Items that people have together are counted.
    CoOccurrences,
    /// Columns of the weights are solved, each once a setting.
    Columns,
    /// A setting is measured on validation users.
    Measure,
    /// The scores are turned into probabilities.
    Temperature,
}

/// How far a fit has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearStep {
    /// What it is doing.
    pub stage: LinearStage,
    /// Items, users, or columns of all settings, that are done.
    pub done: u64,
    /// All of them; fewer may be needed.
    pub total: u64,
}

/// Reports stages.
pub(crate) struct Reporter<'a> {
    pub(crate) progress: &'a mut dyn Progress<LinearStep>,
    /// Columns of settings that are done, and of all settings.
    pub(crate) columns: (u64, u64),
}

impl Reporter<'_> {
    pub(crate) fn new(progress: &mut dyn Progress<LinearStep>) -> Reporter<'_> {
        Reporter { progress, columns: (0, 0) }
    }

    pub(crate) fn stage(&mut self, stage: LinearStage, done: u64, total: u64) -> Result<()> {
        Ok(report(self.progress, &LinearStep { stage, done, total })?)
    }

    /// `done` columns of the present setting.
    pub(crate) fn solved(&mut self, done: usize) -> Result<()> {
        let (before, total) = self.columns;
        self.stage(LinearStage::Columns, before + done as u64, total.max(before + done as u64))
    }
}
