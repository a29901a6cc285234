//! The configuration that file and flags make.

use std::collections::BTreeMap;
use std::path::Path;

use glta_core::Grid;
use glta_graph::LightGcnConfig;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::LightgcnArgs;
use crate::Result;

/// Defaults, then the file, then the flags.
pub(super) fn configuration(args: &LightgcnArgs) -> Result<LightGcnConfig> {
    let mut config = match &args.config {
        None => LightGcnConfig::default(),
        Some(path) => read_toml(path)?,
    };
    for assignment in &args.set {
        config = set(&config, assignment)?;
    }
    config.validate()?;
    Ok(config)
}

/// `config` with the field of `FIELD=VALUE` changed. What is no TOML value is meant as a
/// string: `loss=bpr`.
fn set(config: &LightGcnConfig, assignment: &str) -> Result<LightGcnConfig> {
    let (field, value) = assignment
        .split_once('=')
        .ok_or_else(|| format!("--set {assignment}: expected FIELD=VALUE"))?;
    let value = match toml::from_str::<BTreeMap<String, Value>>(&format!("value = {value}")) {
        Ok(mut parsed) => parsed.remove("value").unwrap_or_default(),
        Err(_) => Value::from(value),
    };
    let grid = Grid(BTreeMap::from([(field.to_owned(), vec![value])]));
    Ok(grid.candidates(config)?.remove(0))
}

/// A TOML file as a value.
pub(super) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_set_from_numbers_tables_and_bare_words() {
        let config = LightGcnConfig::default();
        let changed = set(&config, "layers=2").unwrap();
        assert_eq!(changed, LightGcnConfig { layers: 2, ..config.clone() });
        assert_eq!(set(&changed, "layers=3").unwrap(), config);
        let changed = set(&config, "schedule={cosine={final_ratio=0.01}}").unwrap();
        assert_ne!(changed.schedule, config.schedule);
        assert_eq!(set(&changed, "schedule=constant").unwrap(), config);
    }

    #[test]
    fn wrong_assignments_are_refused() {
        let config = LightGcnConfig::default();
        assert!(set(&config, "layers").unwrap_err().to_string().contains("FIELD=VALUE"));
        assert!(set(&config, "layerz=2").is_err());
        assert!(set(&config, "layers=many").is_err());
    }
}
