//! Reads the settings of the rotary embedding, which `config.json` spells in several ways.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::problem;
use crate::error::{Error, Result};
use crate::json::{Fields, Object};

/// Scaling of the rotary frequencies for long contexts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Divides all frequencies by `factor`.
    Linear {
        /// Divisor of the frequencies, at least 1.
        factor: f64,
    },
    /// Changes the base for texts beyond the original context. This crate only runs texts up to the
    /// original context, where this scaling has no effect.
    Dynamic {
        /// Factor by which the context is extended, at least 1.
        factor: f64,
    },
    /// Scales the frequencies differently in three bands of wavelengths, as in LLaMA 3.1.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// The original context divided by this factor is the wavelength above which frequencies
        /// are scaled.
        low_freq_factor: f64,
        /// The original context divided by this factor is the wavelength below which frequencies
        /// are unchanged.
        high_freq_factor: f64,
        /// Context length of the original training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// Divides frequencies below a ramp by `factor`, and multiplies all cosines and sines by
    /// `attention_factor` (YaRN, arXiv 2309.00071).
    Yarn {
        /// Divisor of the low frequencies, at least 1.
        factor: f64,
        /// Factor by which the rotated queries and keys are multiplied.
        attention_factor: f64,
        /// Number of rotations over the original context above which frequencies are unchanged.
        beta_fast: f64,
        /// Number of rotations over the original context below which frequencies are divided by
        /// `factor`.
        beta_slow: f64,
        /// Context length of the original training, in tokens.
        original_max_position_embeddings: usize,
        /// Whether the ends of the ramp are rounded to whole dimensions.
        truncate: bool,
    },
}

impl RopeScaling {
    pub(super) fn validate(&self) -> Result<()> {
        let check_factor = |factor: f64| {
            if factor.is_finite() && factor >= 1.0 {
                return Ok(());
            }
            Err(problem("rope_scaling", format!("factor {factor} is below 1")))
        };
        match *self {
            Self::Linear { factor } | Self::Dynamic { factor } => check_factor(factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                check_factor(factor)?;
                let ordered = low_freq_factor > 0.0 && high_freq_factor > low_freq_factor;
                if ordered && high_freq_factor.is_finite() && original_max_position_embeddings > 0 {
                    return Ok(());
                }
                Err(problem(
                    "rope_scaling",
                    "llama3 needs 0 < low_freq_factor < high_freq_factor and a context length",
                ))
            }
            Self::Yarn {
                factor,
                attention_factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings,
                ..
            } => {
                check_factor(factor)?;
                let ordered = beta_slow > 0.0 && beta_fast >= beta_slow && beta_fast.is_finite();
                let scaled = attention_factor.is_finite() && attention_factor > 0.0;
                if ordered && scaled && original_max_position_embeddings > 0 {
                    return Ok(());
                }
                Err(problem(
                    "rope_scaling",
                    "yarn needs 0 < beta_slow <= beta_fast, a positive attention_factor and a \
                     context length",
                ))
            }
        }
    }
}

/// Settings of the rotary embedding in `config.json`.
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: Option<RopeScaling>,
    /// Maximum number of tokens of a text that the model supports.
    pub(super) context: usize,
}

/// Merges `rope_parameters` (transformers 5), `rope_scaling` (older) and the top-level keys.
/// `positions` is `max_position_embeddings`.
pub(super) fn parse(f: &Fields<'_>, positions: usize) -> Result<Rope> {
    let dict = merged(f)?;
    let rope = Fields { path: f.path, object: &dict };
    let theta = agreed(f, &rope, "rope_theta")?.unwrap_or(10_000.0);
    if let Some(share) = agreed(f, &rope, "partial_rotary_factor")?.filter(|&share| share != 1.0) {
        return Err(f.unsupported(format!("partial_rotary_factor {share}"), "1"));
    }
    let kind = match (rope.str("rope_type")?, rope.str("type")?) {
        (Some(kind), Some(old)) if kind != old => {
            return Err(contradiction(f, "rope_type", kind, "type", old));
        }
        (kind, old) => kind.or(old).unwrap_or("default"),
    };
    let need = |key: &str| {
        let lacks = || Error::json(f.path, format!("rope scaling \"{kind}\" lacks `{key}`"));
        rope.f64(key)?.ok_or_else(lacks)
    };
    // Some files have this key at the top level, which transformers prefers.
    let original = || -> Result<usize> {
        let key = "original_max_position_embeddings";
        Ok(f.usize(key)?.or(rope.usize(key)?).unwrap_or(positions))
    };
    let times = |tokens: usize, factor: f64| {
        // The factor is validated later. Until then, a factor out of range does not change the
        // length.
        let longer = (tokens as f64 * factor).round();
        if longer.is_finite() && longer < 2f64.powi(28) { longer as usize } else { tokens }
    };
    let (scaling, context) = match kind {
        "default" => (None, positions),
        "linear" => {
            let factor = need("factor")?;
            // Vicuna states the resulting length; other models only state the factor.
            let longer = match f.usize("max_sequence_length")? {
                Some(tokens) => tokens,
                None => times(positions, factor),
            };
            (Some(RopeScaling::Linear { factor }), longer.max(positions))
        }
        "dynamic" => (Some(RopeScaling::Dynamic { factor: need("factor")? }), positions),
        "llama3" => {
            let scaling = RopeScaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_position_embeddings: original()?,
            };
            (Some(scaling), positions)
        }
        "yarn" => {
            let original = original()?;
            let factor = match rope.f64("factor")? {
                Some(factor) => factor,
                None => positions as f64 / original as f64,
            };
            let scaling = RopeScaling::Yarn {
                factor,
                attention_factor: attention_factor(&rope, factor)?,
                beta_fast: rope.f64("beta_fast")?.filter(|&b| b != 0.0).unwrap_or(32.0),
                beta_slow: rope.f64("beta_slow")?.filter(|&b| b != 0.0).unwrap_or(1.0),
                original_max_position_embeddings: original,
                truncate: rope.bool("truncate")?.unwrap_or(true),
            };
            (Some(scaling), times(original, factor).max(positions))
        }
        other => {
            return Err(f.unsupported(
                format!("rope type \"{other}\""),
                "default, linear, dynamic, llama3, yarn",
            ));
        }
    };
    Ok(Rope { theta, scaling, context })
}

/// Returns YaRN's attention factor from the file, or the value that the YaRN paper suggests.
fn attention_factor(rope: &Fields<'_>, factor: f64) -> Result<f64> {
    if let Some(stated) = rope.f64("attention_factor")? {
        return Ok(stated);
    }
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let set = |key: &str| Ok::<_, Error>(rope.f64(key)?.filter(|&m| m != 0.0));
    Ok(match (set("mscale")?, set("mscale_all_dim")?) {
        (Some(m), Some(all)) => scale(m) / scale(all),
        _ => scale(1.0),
    })
}

/// Merges the dictionaries `rope_parameters` and `rope_scaling`. A key that is in both must have
/// the same value.
fn merged(f: &Fields<'_>) -> Result<Object> {
    let mut merged = Object::new();
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(dict) = f.object(key)? else { continue };
        for (name, value) in flat(&dict, key)?.iter().filter(|(_, value)| !value.is_null()) {
            match merged.get(name) {
                Some(other) if !same(other, value) => {
                    return Err(Error::json(
                        f.path,
                        format!(
                            "`rope_scaling.{name}` is {other}, but `rope_parameters.{name}` is \
                             {value}; remove the wrong one"
                        ),
                    ));
                }
                _ => drop(merged.insert(name.clone(), value.clone())),
            }
        }
    }
    Ok(merged)
}

/// Flattens a dictionary that has one entry per kind of layer; all entries must be equal.
fn flat<'a>(dict: &Fields<'a>, key: &str) -> Result<&'a Object> {
    let kinds = ["full_attention", "sliding_attention"].map(|kind| dict.object.get(kind));
    match kinds {
        [None, None] => Ok(dict.object),
        [Some(Value::Object(one)), None] | [None, Some(Value::Object(one))] => Ok(one),
        [Some(Value::Object(one)), Some(Value::Object(other))] if one == other => Ok(one),
        _ => Err(dict.unsupported(
            format!("`{key}` that differs between layers"),
            "one rotary embedding for all layers",
        )),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Reads a number from the dictionary or the top level. If both have it, the values must be equal.
fn agreed(f: &Fields<'_>, rope: &Fields<'_>, key: &str) -> Result<Option<f64>> {
    match (rope.f64(key)?, f.f64(key)?) {
        (Some(inside), Some(beside)) if inside != beside => Err(Error::json(
            f.path,
            format!(
                "`{key}` is {inside} among the rope parameters, but {beside} beside them; remove \
                 the wrong one"
            ),
        )),
        (inside, beside) => Ok(inside.or(beside)),
    }
}

fn contradiction(f: &Fields<'_>, key: &str, value: &str, other: &str, other_value: &str) -> Error {
    Error::json(
        f.path,
        format!(
            "the rope parameters' `{key}` is \"{value}\", but `{other}` is \"{other_value}\"; \
             remove the wrong one"
        ),
    )
}
