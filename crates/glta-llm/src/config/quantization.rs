//! The quantisation settings of the linear layers.

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

use super::problem::problem;
use crate::error::{Error, Result};

/// Quantisation of a checkpoint's linear layers, from `quantize_config.json` or from
/// `quantization_config` in `config.json`. The default is 4 bits in groups of 128, symmetric,
/// without act-order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeConfig {
    /// Number of bits per weight: 2, 3, 4 or 8.
    pub bits: u32,
    /// Number of inputs that share a scale and a zero point; `None` (-1 in the file) for all
    /// inputs.
    pub group_size: Option<usize>,
    /// Act-order: whether inputs were quantised in the order of their activations.
    pub desc_act: bool,
    /// Whether quantisation is symmetric: all zero points are in the middle of the range.
    pub sym: bool,
    /// Layout of weights and zero points on disk.
    pub checkpoint_format: CheckpointFormat,
    /// Whether the output layer is quantised as well.
    pub lm_head: bool,
    /// Exceptions for some linear layers (`dynamic` of GPTQModel). The first rule whose pattern
    /// matches the name of a layer applies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dynamic: Vec<ModuleRule>,
    /// Names of the quantised linear layers of a decoder layer, such as `mlp.up_proj`
    /// (`modules_in_block_to_quantize`). The other linear layers are plain. `None` if all are
    /// quantised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<String>>,
}

/// An exception for the linear layers whose names match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleRule {
    /// Regular expression, matched from the start of the layer's name.
    pub pattern: String,
    /// Whether the layers are quantised; `false` for plain weights.
    pub quantized: bool,
    /// Number of bits per weight; `None` for the value of the checkpoint.
    pub bits: Option<u32>,
    /// Number of inputs per group, -1 for all inputs; `None` for the value of the checkpoint.
    pub group_size: Option<i64>,
    /// Whether the layers have act-order; `None` for the value of the checkpoint.
    pub desc_act: Option<bool>,
    /// Whether quantisation is symmetric; `None` for the value of the checkpoint.
    pub sym: Option<bool>,
}

/// Layout of weights and zero points on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckpointFormat {
    /// GPTQ with zero points stored as `zero - 1`, the default of files without a format.
    #[default]
    #[serde(rename = "gptq")]
    V1,
    /// GPTQ with unchanged zero points.
    #[serde(rename = "gptq_v2")]
    V2,
    /// AWQ's 4-bit layout `gemm`, in which fields of neighbouring outputs are interleaved.
    #[serde(rename = "awq_gemm")]
    AwqGemm,
}

impl Default for QuantizeConfig {
    fn default() -> Self {
        Self {
            bits: 4,
            group_size: Some(128),
            desc_act: false,
            sym: true,
            checkpoint_format: CheckpointFormat::V1,
            lm_head: false,
            dynamic: Vec::new(),
            modules: None,
        }
    }
}

impl QuantizeConfig {
    /// Checks that the fields are valid.
    ///
    /// # Errors
    /// Returns an error that names the first invalid field.
    pub fn validate(&self) -> Result<()> {
        check_bits(self.bits)?;
        if self.checkpoint_format == CheckpointFormat::AwqGemm && self.bits != 4 {
            return Err(Error::Unsupported {
                what: format!("AWQ with bits = {}", self.bits),
                supported: "4",
            });
        }
        if self.group_size == Some(0) {
            return Err(problem("group_size", "0; use -1 for one group"));
        }
        for rule in &self.dynamic {
            rule.regex()?;
            check_bits(rule.bits.unwrap_or(self.bits))?;
            rule.group_size.map(group_size).transpose()?;
        }
        Ok(())
    }

    /// Returns the settings of one linear layer by its full name, such as
    /// `model.layers.0.mlp.up_proj`; `None` if its weights are plain.
    pub(crate) fn for_module(&self, name: &str) -> Result<Option<Self>> {
        if let Some(modules) = &self.modules
            && let Some((_, module)) =
                name.split_once("layers.").and_then(|(_, rest)| rest.split_once('.'))
            && !modules.iter().any(|quantized| quantized == module)
        {
            return Ok(None);
        }
        let mut own = Self { dynamic: Vec::new(), modules: None, ..self.clone() };
        for rule in &self.dynamic {
            let found = rule.regex()?.is_match(name);
            let found = found.map_err(|e| rule.problem(&e.to_string()))?;
            if found {
                own.bits = rule.bits.unwrap_or(own.bits);
                if let Some(size) = rule.group_size {
                    own.group_size = group_size(size)?;
                }
                own.desc_act = rule.desc_act.unwrap_or(own.desc_act);
                own.sym = rule.sym.unwrap_or(own.sym);
                return Ok(rule.quantized.then_some(own));
            }
        }
        Ok(Some(own))
    }
}

impl ModuleRule {
    fn regex(&self) -> Result<Regex> {
        // Anchor the pattern at the start only, like Python's `re.match`.
        let regex = Regex::new(&format!("^(?:{})", self.pattern));
        regex.map_err(|e| self.problem(&e.to_string()))
    }

    fn problem(&self, what: &str) -> Error {
        problem("dynamic", format!("pattern {:?}: {what}", self.pattern))
    }
}

fn check_bits(bits: u32) -> Result<()> {
    if [2, 3, 4, 8].contains(&bits) {
        return Ok(());
    }
    Err(Error::Unsupported { what: format!("quantization bits = {bits}"), supported: "2, 3, 4, 8" })
}

pub(super) fn group_size(size: i64) -> Result<Option<usize>> {
    match size {
        -1 => Ok(None),
        size if size > 0 => Ok(Some(size as usize)),
        _ => Err(problem("group_size", format!("{size} is neither -1 nor positive"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, quantized: bool, bits: Option<u32>) -> ModuleRule {
        let (group_size, desc_act, sym) = (None, None, None);
        ModuleRule { pattern: pattern.into(), quantized, bits, group_size, desc_act, sym }
    }

    #[test]
    fn the_first_rule_that_matches_from_the_start_counts() {
        let config = QuantizeConfig {
            dynamic: vec![
                rule(r".*\.layers\.0\..*down_proj", false, None),
                rule(r"model\.layers\.(?!1\.)\d+\.mlp", true, Some(8)),
                rule("layers", true, Some(2)),
            ],
            ..QuantizeConfig::default()
        };
        config.validate().unwrap();
        let bits = |name: &str| config.for_module(name).unwrap().map(|own| own.bits);
        assert_eq!(bits("model.layers.0.mlp.down_proj"), None);
        assert_eq!(bits("model.layers.0.mlp.up_proj"), Some(8));
        assert_eq!(bits("model.layers.1.mlp.up_proj"), Some(4), "`layers` is not at the start");
        let broken = QuantizeConfig { dynamic: vec![rule("(", true, None)], ..config.clone() };
        assert!(broken.validate().unwrap_err().to_string().contains("\"(\""));
    }

    #[test]
    fn modules_that_are_not_listed_are_plain() {
        let modules = Some(vec!["mlp.up_proj".to_owned()]);
        let config = QuantizeConfig { modules, ..QuantizeConfig::default() };
        let quantized = |name: &str| config.for_module(name).unwrap().is_some();
        assert!(quantized("model.layers.3.mlp.up_proj") && quantized("layers.3.mlp.up_proj"));
        assert!(!quantized("model.layers.3.mlp.down_proj"));
        assert!(quantized("lm_head"), "a key of its own");
    }
}
