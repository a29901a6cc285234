use std::path::Path;

use glta_linear::LinearReport;
use serde::{Deserialize, Serialize};

use crate::files::read_text;
use crate::trainer::StageHistory;
use crate::{Error, Result};

/// The reports of the stages of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FitReport {
    /// Stage 2. Its metric is the matching accuracy among the items shown.
    pub item_stage: Option<StageHistory>,
    /// Stage 3. Its metric is N@10 on the validation items. `None` without a prompt path.
    pub user_stage: Option<StageHistory>,
    /// The linear model, if the run has one.
    pub linear: Option<LinearReport>,
    /// Seconds of the linear model's fit over all settings; `None` if another process fitted it.
    pub linear_seconds: Option<f64>,
    /// Names of the encoders of the item texts.
    pub encoders: Vec<String>,
    /// The factor of the correction, which is 0 without a prompt path. `None` without a linear
    /// model or without validation items.
    pub mix: Option<Mix>,
}

/// The correction of the linear model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Mix {
    /// Factor of the correction's logits.
    pub factor: f64,
    /// N@10 of both together on the validation items.
    pub validation: f64,
}

impl FitReport {
    /// Reads the reports of a finished run.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        serde_json::from_str(&read_text(path)?).map_err(|e| Error::file(path, e))
    }

    /// N@10 of the final model on the validation items.
    pub fn validation(&self) -> Option<f64> {
        self.mix.as_ref().map(|mix| mix.validation).or_else(|| self.user_stage.as_ref()?.best())
    }
}
