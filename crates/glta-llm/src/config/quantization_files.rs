//! Merges the quantisation settings of `config.json` (`quantization_config`) and
//! `quantize_config.json`.

use std::path::Path;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::problem::located;
use super::quantization::{CheckpointFormat, ModuleRule, QuantizeConfig, group_size};
use crate::error::{Error, Result};
use crate::json::Fields;

/// Name of the format with unchanged zero points.
const V2: &str = "gptq_v2";
const AWQ: &str = "awq_gemm";

/// The settings of one file. A setting that the file does not contain is `None`.
struct Stated<'a> {
    path: &'a Path,
    bits: Option<usize>,
    group_size: Option<i64>,
    desc_act: Option<bool>,
    sym: Option<bool>,
    format: Option<&'static str>,
    lm_head: Option<bool>,
    dynamic: Option<Vec<ModuleRule>>,
    modules: Option<Vec<String>>,
}

/// Merges the settings of both files: `block` is `quantization_config` of `config.json`, and
/// `separate` is `quantize_config.json`. A key that affects the decoded weights must have the same
/// value in both files, or be in only one of them.
pub(super) fn merge(
    block: Option<Fields<'_>>,
    separate: Option<Fields<'_>>,
) -> Result<Option<QuantizeConfig>> {
    let block = block.map(|f| stated(&f)).transpose()?;
    let separate = separate.map(|f| stated(&f)).transpose()?;
    let (first, second) = match (block, separate) {
        (None, None) => return Ok(None),
        (Some(only), None) | (None, Some(only)) => (only, None),
        (Some(first), Some(second)) => (first, Some(second)),
    };
    let path = first.path;
    let pick = Pick { first: &first, second: second.as_ref() };
    let missing = |key: &str| Error::json(path, format!("`{key}` is missing"));
    let bits = pick.one("bits", |s| s.bits)?.ok_or_else(|| missing("bits"))?;
    let size = pick.one("group_size", |s| s.group_size)?.ok_or_else(|| missing("group_size"))?;
    // The values do not affect reading: the file contains the groups and the zero points.
    let desc_act = [first.desc_act, second.as_ref().and_then(|s| s.desc_act)];
    let sym = first.sym.or(second.as_ref().and_then(|s| s.sym));
    let config = QuantizeConfig {
        bits: u32::try_from(bits).unwrap_or(u32::MAX),
        group_size: group_size(size).map_err(|e| located(path, e))?,
        desc_act: desc_act.contains(&Some(true)),
        sym: sym.unwrap_or(true),
        checkpoint_format: match pick.one("checkpoint_format", |s| s.format)? {
            Some(V2) => CheckpointFormat::V2,
            Some(AWQ) => CheckpointFormat::AwqGemm,
            _ => CheckpointFormat::V1,
        },
        lm_head: pick.one("lm_head", |s| s.lm_head)?.unwrap_or(false),
        dynamic: pick.one("dynamic", |s| s.dynamic.clone())?.unwrap_or_default(),
        modules: pick.one("modules_in_block_to_quantize", |s| s.modules.clone())?,
    };
    config.validate().map_err(|e| located(path, e))?;
    Ok(Some(config))
}

/// The settings of both files, which are compared key by key.
struct Pick<'a> {
    first: &'a Stated<'a>,
    second: Option<&'a Stated<'a>>,
}

impl Pick<'_> {
    fn one<T: PartialEq + std::fmt::Debug>(
        &self,
        key: &str,
        get: impl Fn(&Stated<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        let first = get(self.first);
        let Some(other) = self.second else { return Ok(first) };
        match (first, get(other)) {
            (Some(first), Some(second)) if first != second => Err(Error::json(
                self.first.path,
                format!(
                    "`{key}` of the quantization is {first:?}, but {second:?} in {}; correct the \
                     wrong one",
                    other.path.display()
                ),
            )),
            (first, second) => Ok(first.or(second)),
        }
    }
}

/// Reads a setting that can be in either of two keys. If both keys are present, their values must
/// be equal.
fn either<'a>(f: &Fields<'a>, key: &str, other: &str) -> Result<Option<&'a str>> {
    match (f.str(key)?, f.str(other)?) {
        (Some(a), Some(b)) if a != b => Err(Error::json(
            f.path,
            format!("`{key}` is \"{a}\", but `{other}` is \"{b}\"; correct the wrong one"),
        )),
        (a, b) => Ok(a.or(b)),
    }
}

fn stated<'a>(f: &Fields<'a>) -> Result<Stated<'a>> {
    match either(f, "quant_method", "method")? {
        None | Some("gptq") => {}
        Some("awq") => return stated_awq(f),
        Some(other) => {
            return Err(f.unsupported(format!("quant_method \"{other}\""), "gptq, awq"));
        }
    }
    let format = match either(f, "checkpoint_format", "format")? {
        None => None,
        Some("gptq") => Some("gptq"),
        Some(V2) => Some(V2),
        Some(other) => {
            return Err(f.unsupported(format!("checkpoint_format \"{other}\""), "gptq, gptq_v2"));
        }
    };
    if let Some(dtype) = f.str("pack_dtype")?.filter(|&d| d != "int32") {
        return Err(f.unsupported(format!("pack_dtype \"{dtype}\""), "int32"));
    }
    if f.bool("is_marlin_format")?.unwrap_or(false) {
        return Err(f.unsupported("is_marlin_format", "checkpoint_format gptq, gptq_v2"));
    }
    let group_size = match f.get("group_size") {
        None => None,
        Some(value) => match value.as_i64().filter(|&size| size == -1 || size > 0) {
            Some(size) => Some(size),
            None => return Err(f.invalid("group_size", "-1 or a positive number")),
        },
    };
    Ok(Stated {
        path: f.path,
        bits: f.usize("bits")?,
        group_size,
        desc_act: f.bool("desc_act")?,
        sym: f.bool("sym")?,
        format,
        lm_head: f.bool("lm_head")?,
        dynamic: match f.get("dynamic") {
            None => None,
            Some(Value::Object(rules)) if rules.is_empty() => None,
            Some(Value::Object(_)) => Some(rules(f)?),
            Some(_) => return Err(f.invalid("dynamic", "an object of patterns")),
        },
        modules: match f.get("modules_in_block_to_quantize") {
            None => None,
            Some(value) => module_names(value)
                .ok_or_else(|| f.invalid("modules_in_block_to_quantize", "a list of names"))?,
        },
    })
}

/// Reads AWQ's settings: `bits` or AutoAWQ's `w_bit`, and `group_size` or AutoAWQ's `q_group_size`.
fn stated_awq<'a>(f: &Fields<'a>) -> Result<Stated<'a>> {
    let version = f.str("version")?.unwrap_or("gemm").to_lowercase();
    if version != "gemm" {
        return Err(f.unsupported(format!("AWQ version \"{version}\""), "gemm"));
    }
    if f.bool("zero_point")? == Some(false) {
        return Err(f.unsupported("AWQ without zero points", "zero_point true"));
    }
    let size = match f.get("group_size").or(f.get("q_group_size")) {
        None => Some(128),
        Some(size) => match size.as_i64().filter(|&size| size == -1 || size > 0) {
            Some(size) => Some(size),
            None => return Err(f.invalid("group_size", "-1 or a positive number")),
        },
    };
    let plain = f.strings("modules_to_not_convert")?.unwrap_or_default();
    let rule = |name: &str| ModuleRule {
        pattern: format!(".*{}", fancy_regex::escape(name)),
        quantized: false,
        bits: None,
        group_size: None,
        desc_act: None,
        sym: None,
    };
    let rules: Vec<ModuleRule> = plain.into_iter().map(rule).collect();
    Ok(Stated {
        path: f.path,
        bits: f.usize("bits")?.or(f.usize("w_bit")?).or(Some(4)),
        group_size: size,
        desc_act: None,
        sym: Some(false),
        format: Some(AWQ),
        lm_head: None,
        dynamic: Some(rules).filter(|rules| !rules.is_empty()),
        modules: None,
    })
}

/// Reads a list of module names, which may contain nested lists of modules that were quantised
/// together. Returns `Some(None)` if all modules are quantised, that is for an empty list or a list
/// of all modules, and `None` if the value is not such a list.
fn module_names(value: &Value) -> Option<Option<Vec<String>>> {
    let mut names = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::String(name) => names.push(name.clone()),
            _ => return None,
        }
    }
    names.sort_unstable();
    names.dedup();
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|p| format!("self_attn.{p}"));
    let mlp = ["gate_proj", "up_proj", "down_proj"].map(|p| format!("mlp.{p}"));
    let all = attention.iter().chain(&mlp).all(|m| names.contains(m));
    Some(if names.is_empty() || all { None } else { Some(names) })
}

/// Reads GPTQModel's `dynamic` in the order of the file, which a serde_json map does not preserve.
fn rules(f: &Fields<'_>) -> Result<Vec<ModuleRule>> {
    let bytes = std::fs::read(f.path).map_err(Error::io(f.path))?;
    let ordered = serde_json::from_slice::<Block>(&bytes).map_err(|e| Error::json(f.path, e))?;
    let nested = ordered.quantization_config.and_then(|block| block.dynamic);
    let Some(Ordered(rules)) = ordered.dynamic.or(nested) else {
        return Err(f.invalid("dynamic", "an object of patterns"));
    };
    rules
        .into_iter()
        .map(|(pattern, change)| {
            let (quantized, expression) = match pattern.strip_prefix("-:") {
                Some(expression) => (false, expression),
                None => (true, pattern.strip_prefix("+:").unwrap_or(&pattern)),
            };
            let empty = serde_json::Map::new();
            let object = match &change {
                Value::Object(object) => object,
                Value::Null => &empty,
                _ => return Err(f.invalid("dynamic", "an object of objects")),
            };
            let change = Fields { path: f.path, object };
            let known = ["bits", "group_size", "desc_act", "sym"];
            // The other keys describe the quantisation, not the stored format.
            let stored = ["checkpoint_format", "format", "pack_dtype", "method", "quant_method"];
            if let Some(key) = stored.into_iter().find(|key| change.get(key).is_some()) {
                return Err(f.unsupported(
                    format!("`{key}` in `dynamic` for {pattern:?}"),
                    "bits, group_size, desc_act and sym",
                ));
            }
            let size = match change.get(known[1]) {
                None => None,
                Some(size) => {
                    Some(size.as_i64().ok_or_else(|| f.invalid("group_size", "a number"))?)
                }
            };
            let bits = change.usize(known[0])?.map(|bits| u32::try_from(bits).unwrap_or(u32::MAX));
            Ok(ModuleRule {
                pattern: expression.to_owned(),
                quantized,
                bits,
                group_size: size,
                desc_act: change.bool(known[2])?,
                sym: change.bool(known[3])?,
            })
        })
        .collect()
}

/// An object that can contain `dynamic`, directly or within `quantization_config`.
#[derive(Deserialize)]
struct Block {
    dynamic: Option<Ordered>,
    quantization_config: Option<Box<Block>>,
}

struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of patterns")
            }

            fn visit_map<M: MapAccess<'de>>(
                self,
                mut map: M,
            ) -> std::result::Result<Ordered, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
