use serde::{Deserialize, Serialize};

use crate::config::{CheckpointFormat, QuantizeConfig};
use crate::error::{Error, Result};

/// Options of the quantisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeOptions {
    /// Number of bits per weight: 2, 3, 4 or 8. Default 4.
    pub bits: u32,
    /// Number of inputs that share a scale and a zero point; `None` for all inputs. Default 128.
    pub group_size: Option<usize>,
    /// Whether to round columns in the order of their activations across groups (act-order). This
    /// is slightly more accurate, but the model has to gather its inputs when it runs. Without
    /// act-order, columns are ordered within groups and groups stay consecutive in the file.
    /// Default `false`.
    pub desc_act: bool,
    /// Whether quantisation is symmetric, with zero points in the middle of the range. Default
    /// `true`.
    pub sym: bool,
    /// Damping of the Hessian: this share of the mean diagonal is added to the diagonal. Default
    /// 0.05.
    pub damp_percent: f64,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self { bits: 4, group_size: Some(128), desc_act: false, sym: true, damp_percent: 0.05 }
    }
}

impl QuantizeOptions {
    /// Checks that the fields are valid.
    ///
    /// # Errors
    /// Returns an error that names the first invalid field.
    pub fn validate(&self) -> Result<()> {
        self.config().validate()?;
        if !(self.damp_percent > 0.0 && self.damp_percent < 1.0) {
            return Err(Error::Config {
                field: "damp_percent",
                problem: format!("{} is not in (0, 1)", self.damp_percent),
            });
        }
        Ok(())
    }

    pub(super) fn config(&self) -> QuantizeConfig {
        QuantizeConfig {
            bits: self.bits,
            group_size: self.group_size,
            desc_act: self.desc_act,
            sym: self.sym,
            checkpoint_format: CheckpointFormat::V1,
            ..QuantizeConfig::default()
        }
    }
}
