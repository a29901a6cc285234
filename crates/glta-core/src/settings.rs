//! Edits a configuration by field paths.
//!
//! The functions edit any serde configuration through its JSON form, which names every field,
//! including an `Option` that is `None`. Numbers keep their exact value.
//!
//! ```
//! use glta_core::settings;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Config {
//!     train: Train,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Train {
//!     epochs: usize,
//!     clip_norm: Option<f64>,
//! }
//!
//! let mut config = Config { train: Train { epochs: 10, clip_norm: None } };
//! settings::set(&mut config, "train.clip_norm=0.5")?;
//! settings::merge_toml(&mut config, "[train]\nepochs = 3")?;
//! assert_eq!((config.train.epochs, config.train.clip_norm), (3, Some(0.5)));
//!
//! let unknown = settings::set(&mut config, "train.epoch=3").unwrap_err();
//! assert!(unknown.to_string().contains("near names: epochs"));
//! # Ok::<(), glta_core::Error>(())
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Sets one field by an assignment to its dotted path, such as `train.epochs=3`. The value is
/// parsed as TOML. Text that is not TOML becomes a string. [`merge_toml`] describes how tables are
/// merged.
///
/// # Errors
/// Returns [`Error::UnknownSetting`] if the path does not exist, and [`Error::Setting`] if the
/// value does not fit the field. On an error, `config` stays unchanged.
pub fn set<C: Serialize + DeserializeOwned>(config: &mut C, assignment: &str) -> Result<()> {
    let Some((path, text)) = assignment.split_once('=') else {
        return Err(invalid(assignment, "expected PATH=VALUE"));
    };
    let (path, text) = (path.trim(), text.trim());
    let value = match text.parse::<toml::Value>() {
        Ok(value) => json(path, value)?,
        Err(_) => Value::from(text),
    };
    *config = edited(config, nested(path, value))?;
    Ok(())
}

/// Merges TOML into a configuration. Fields that the text does not name keep their value. For an
/// enum whose variants have fields, a table may select a different variant.
///
/// # Errors
/// Returns the errors of [`set`], and [`Error::Toml`] if the text is not TOML. On an error,
/// `config` stays unchanged.
pub fn merge_toml<C: Serialize + DeserializeOwned>(config: &mut C, text: &str) -> Result<()> {
    let table: toml::Table = toml::from_str(text)?;
    *config = edited(config, json("", toml::Value::Table(table))?)?;
    Ok(())
}

/// Returns a copy of `config` in which the fields of the object `given` have the values of this
/// object.
fn edited<C: Serialize + DeserializeOwned>(config: &C, given: Value) -> Result<C> {
    let mut tree = tree(config)?;
    put::<C>(&mut tree, &[], given)?;
    parsed(&tree)
}

/// Converts a configuration to JSON.
pub(crate) fn tree<C: Serialize>(config: &C) -> Result<Value> {
    serde_json::to_value(config).map_err(|e| invalid("", e))
}

/// Converts JSON to a configuration.
pub(crate) fn parsed<C: DeserializeOwned>(tree: &Value) -> Result<C> {
    C::deserialize(tree).map_err(|e| invalid("", e))
}

/// Returns nested objects that contain `value` at the dotted `path`.
pub(crate) fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.')
        .fold(value, |value, step| Value::Object(Map::from_iter([(step.to_owned(), value)])))
}

/// Writes `value` to `path` in `tree`, the JSON form of a `C`. Objects are merged field by field.
/// After an error, some fields of `tree` may already be changed.
pub(crate) fn put<C: Serialize + DeserializeOwned>(
    tree: &mut Value,
    path: &[&str],
    value: Value,
) -> Result<()> {
    let fields = at(tree, path).and_then(Value::as_object);
    match (fields.map(|fields| fields.keys().cloned().collect()), value) {
        (Some(fields), Value::Object(given)) => put_fields::<C>(tree, path, fields, given),
        (fields, value) => replace::<C>(tree, path, value).map_err(|problem| {
            let fields: Option<Vec<String>> = fields;
            let has = fields.map(|fields| format!("; it has the fields {}", fields.join(", ")));
            invalid(&path.join("."), format!("{problem}{}", has.unwrap_or_default()))
        }),
    }
}

/// Writes the fields of `given` to the object at `path`, whose fields are `known`.
fn put_fields<C: Serialize + DeserializeOwned>(
    tree: &mut Value,
    path: &[&str],
    mut known: Vec<String>,
    given: Map<String, Value>,
) -> Result<()> {
    let (old, new): (Map<_, _>, Map<_, _>) =
        given.into_iter().partition(|(name, _)| known.contains(name));
    if let Some(unknown) = new.keys().next() {
        // Entries of a map, and fields that the JSON form omits, are added to the object. If this
        // is not valid, the object replaces another variant of an enum.
        let mut added = at(tree, path).and_then(Value::as_object).cloned().unwrap_or_default();
        added.extend(new.clone());
        if replace::<C>(tree, path, Value::Object(added)).is_err() {
            let only: Map<_, _> = old.into_iter().chain(new.clone()).collect();
            return replace::<C>(tree, path, Value::Object(only)).map_err(|problem| {
                if problem.starts_with("unknown variant") {
                    return invalid(&path.join("."), problem);
                }
                known.sort_by_cached_key(|name| strsim::levenshtein(name, unknown));
                known.truncate(3);
                let path = [path, &[unknown.as_str()]].concat().join(".");
                Error::UnknownSetting { path, near: known }
            });
        }
    }
    for (name, value) in old {
        put::<C>(tree, &[path, &[name.as_str()]].concat(), value)?;
    }
    Ok(())
}

/// Replaces the value at `path`. If the result is not a valid `C`, `tree` stays unchanged, and the
/// error describes the problem.
fn replace<C: Serialize + DeserializeOwned>(
    tree: &mut Value,
    path: &[&str],
    value: Value,
) -> std::result::Result<(), String> {
    let mut with = tree.clone();
    let place = path.iter().try_fold(&mut with, |node, step| node.get_mut(step));
    *place.ok_or("there is no such field")? = value.clone();
    let config = C::deserialize(&with).map_err(|e| e.to_string())?;
    let with = serde_json::to_value(config).map_err(|e| e.to_string())?;
    // The type `C` may ignore unknown fields. The JSON form then lacks the new value.
    if !at(&with, path).is_some_and(|taken| has_fields(taken, &value)) {
        return Err("there are no such fields".into());
    }
    *tree = with;
    Ok(())
}

/// Returns whether `of` has every field that `value` has.
fn has_fields(of: &Value, value: &Value) -> bool {
    match (of, value) {
        (Value::Object(of), Value::Object(value)) => value
            .iter()
            .all(|(name, value)| of.get(name).is_some_and(|field| has_fields(field, value))),
        (_, Value::Object(value)) => value.is_empty(),
        _ => true,
    }
}

fn at<'a>(tree: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |node, step| node.get(step))
}

/// Converts a TOML value to JSON. Returns an error for NaN and infinity, which JSON cannot
/// represent.
fn json(path: &str, value: toml::Value) -> Result<Value> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(n) => Value::from(n),
        toml::Value::Float(x) if x.is_finite() => Value::from(x),
        toml::Value::Float(x) => return Err(invalid(path, format!("{x} is not a finite number"))),
        toml::Value::Boolean(yes) => Value::from(yes),
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| json(path, value)).collect::<Result<_>>()?)
        }
        toml::Value::Table(fields) => {
            let field = |(name, value): (String, toml::Value)| {
                let path = [path, &name].join(if path.is_empty() { "" } else { "." });
                Ok((name, json(&path, value)?))
            };
            Value::Object(fields.into_iter().map(field).collect::<Result<_>>()?)
        }
    })
}

pub(crate) fn invalid(path: &str, problem: impl ToString) -> Error {
    Error::Setting { path: path.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Config {
        rate: f32,
        ratio: f64,
        seed: u64,
        layers: Option<usize>,
        name: String,
        loss: Loss,
        stage: Stage,
        weights: BTreeMap<String, f64>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Loss {
        Bpr,
        Softmax { temperature: f64 },
        Margin { gap: f64, power: u32 },
    }

    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Stage {
        epochs: usize,
        batch: usize,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        grid: Vec<f64>,
        decay: Option<Decay>,
    }

    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Decay {
        every: usize,
        factor: f64,
    }

    fn config() -> Config {
        Config {
            rate: 0.1,
            ratio: 0.1,
            seed: 1,
            layers: None,
            name: "a".into(),
            loss: Loss::Bpr,
            stage: Stage { epochs: 3, batch: 4, ..Stage::default() },
            weights: BTreeMap::from([("x".into(), 1.0)]),
        }
    }

    fn with(assignments: &[&str]) -> Result<Config> {
        let mut config = config();
        assignments.iter().try_for_each(|a| set(&mut config, a))?;
        Ok(config)
    }

    #[test]
    fn fields_are_set_by_path() {
        let changed = with(&[
            "layers=4",
            "name = two words",
            "ratio=1",
            "stage.epochs=7",
            "stage.grid=[0.5, 1]",
            "stage.decay.every=2",
            "stage.decay.factor=0.25",
            "weights.y=2",
        ])
        .unwrap();
        let expected = Config {
            layers: Some(4),
            name: "two words".into(),
            ratio: 1.0,
            stage: Stage {
                epochs: 7,
                batch: 4,
                grid: vec![0.5, 1.0],
                decay: Some(Decay { every: 2, factor: 0.25 }),
            },
            weights: BTreeMap::from([("x".into(), 1.0), ("y".into(), 2.0)]),
            ..config()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn enums_with_data_change_variant_or_field() {
        let margin = |gap, power| Loss::Margin { gap, power };
        for (assignments, loss) in [
            (&["loss.softmax.temperature=0.5"][..], Loss::Softmax { temperature: 0.5 }),
            (&["loss={margin={gap=1.5, power=2}}"], margin(1.5, 2)),
            (&["loss={margin={gap=1.5, power=2}}", "loss.margin.power=3"], margin(1.5, 3)),
            (&["loss.softmax.temperature=0.5", "loss={margin={gap=1, power=2}}"], margin(1.0, 2)),
            (&["loss.softmax.temperature=0.5", "loss=bpr"], Loss::Bpr),
        ] {
            assert_eq!(with(assignments).unwrap().loss, loss, "{assignments:?}");
        }
    }

    #[test]
    fn text_changes_only_what_it_names_or_nothing() {
        let mut changed = config();
        merge_toml(&mut changed, "layers = 2\n[stage]\nbatch = 8").unwrap();
        let stage = Stage { batch: 8, ..config().stage };
        assert_eq!(changed, Config { layers: Some(2), stage, ..config() });
        let before = changed.clone();
        for text in ["layers = 3\n[stage]\nbatch = 9\nbach = 1", "layers = 3\nseed = 'x'", "="] {
            assert!(merge_toml(&mut changed, text).is_err());
            assert_eq!(changed, before);
        }
    }

    #[test]
    fn mistakes_name_the_path() {
        for (assignment, path, near) in [
            ("lair=1", "lair", "layers"),
            ("stage.epoch=1", "stage.epoch", "epochs"),
            ("stage={batch=1, bach=2}", "stage.bach", "batch"),
            // This type ignores unknown fields.
            ("stage.decay={every=1, evry=2}", "stage.decay", ""),
        ] {
            let message = with(&[assignment]).unwrap_err().to_string();
            assert!(message.contains(&format!("`{path}`")), "{message}");
            assert!(message.contains(near), "{message}");
        }
        for (assignment, path, problem) in [
            ("layers=many", "layers", "invalid type: string \"many\""),
            ("stage.epochs=-1", "stage.epochs", "-1"),
            ("stage.epochs.x=1", "stage.epochs", "map"),
            ("stage=3", "stage", "epochs"),
            ("loss=brp", "loss", "unknown variant `brp`, expected one of `bpr`"),
            ("loss={brp={}}", "loss", "unknown variant"),
            ("ratio=nan", "ratio", "finite"),
            ("weights={x=inf}", "weights.x", "finite"),
            ("layers", "layers", "PATH=VALUE"),
        ] {
            let message = with(&[assignment]).unwrap_err().to_string();
            assert!(message.contains(&format!("`{path}`: ")), "{message}");
            assert!(message.contains(problem), "{message}");
        }
        let variant = ["loss.softmax.temperature=0.5", "loss={brp={}}"];
        assert!(with(&variant).unwrap_err().to_string().contains("unknown variant `brp`"));
    }

    proptest! {
        #[test]
        fn numbers_keep_their_exact_value(rate: f32, ratio: f64, seed: u64, other: f64) {
            prop_assume!(rate.is_finite() && ratio.is_finite() && other.is_finite());
            let before = Config { rate, ratio, seed, ..config() };
            let mut changed = before.clone();
            set(&mut changed, &format!("weights.x={other:?}")).unwrap();
            prop_assert_eq!(changed.weights["x"].to_bits(), other.to_bits());
            let Config { rate, ratio, seed, .. } = changed;
            prop_assert_eq!(rate.to_bits(), before.rate.to_bits());
            prop_assert_eq!(ratio.to_bits(), before.ratio.to_bits());
            prop_assert_eq!(seed, before.seed);
        }
    }
}
