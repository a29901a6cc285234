use std::path::Path;

use glta_linear::LinearReport;
use serde::{Deserialize, Serialize};

use crate::files::read_text;
use crate::trainer::StageHistory;
use crate::{Error, Result};

/// Reports of all stages of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FitReport {
    /// History of stage 2. Its metric is the matching accuracy among the items shown.
    pub item_stage: Option<StageHistory>,
    /// History of stage 3. Its metric is N@10 on the validation items. `None` without a prompt
    /// path.
    pub user_stage: Option<StageHistory>,
    /// Report on the linear model, if the run has one.
    pub linear: Option<LinearReport>,
    /// Duration of the linear model's fit over all settings in seconds, or `None` if another
    /// process fitted the model.
    pub linear_seconds: Option<f64>,
    /// Names of the encoders of the item texts.
    pub encoders: Vec<String>,
    /// Factor of the correction, which is 0 without a prompt path. `None` without a linear model or
    /// without validation items.
    pub mix: Option<Mix>,
}

/// The chosen factor of the correction, and the N@10 that it reaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Mix {
    /// Factor by which the correction's logits are multiplied.
    pub factor: f64,
    /// N@10 of the corrected linear model on the validation items.
    pub validation: f64,
}

impl FitReport {
    /// Reads the reports of a finished run from its history file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        serde_json::from_str(&read_text(path)?).map_err(|e| Error::file(path, e))
    }

    /// Returns N@10 of the final model on the validation items, or `None` without validation items.
    pub fn validation(&self) -> Option<f64> {
        self.mix.as_ref().map(|mix| mix.validation).or_else(|| self.user_stage.as_ref()?.best())
    }
}
