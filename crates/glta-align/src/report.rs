use std::path::Path;

use glta_linear::LinearReport;
use serde::{Deserialize, Serialize};

use crate::files::read_text;
use crate::trainer::StageHistory;
use crate::{Error, Result};

/// What the stages of a run reported.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FitReport {
    /// Stage 2; its metric is the matching accuracy among the items shown.
    pub item_stage: Option<StageHistory>,
    /// Stage 3; its metric is N@10 on the validation items. `None` without a path
    /// through the prompt.
    pub user_stage: Option<StageHistory>,
    /// The linear item model, where the run has one.
    pub linear: Option<LinearReport>,
    /// Seconds that its fit took, all settings together; `None` if another process fitted it.
    pub linear_seconds: Option<f64>,
    /// Names of the encoders that read the items' texts.
    pub encoders: Vec<String>,
    /// How the language model's path was added to it, with the factor 0 where there is
    /// no path; `None` without a linear model or without validation items.
    pub mix: Option<Mix>,
}

/// The trained correction beside the linear item model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Mix {
    /// The correction's logits are multiplied by this.
    pub factor: f64,
    /// N@10 on the validation items of both together.
    pub validation: f64,
}

impl FitReport {
    /// What a finished run saved.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        serde_json::from_str(&read_text(path)?).map_err(|e| Error::file(path, e))
    }

    /// N@10 on the validation items of what was kept in the end.
    pub fn validation(&self) -> Option<f64> {
        self.mix.as_ref().map(|mix| mix.validation).or_else(|| self.user_stage.as_ref()?.best())
    }
}
