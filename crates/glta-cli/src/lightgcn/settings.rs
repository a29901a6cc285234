//! Reads the configuration from the file and the flags.

use std::path::Path;

use glta_core::{settings, with_causes};
use glta_graph::LightGcnConfig;
use serde::de::DeserializeOwned;

use super::args::LightgcnArgs;
use crate::Result;

/// Returns the configuration. `--config` replaces defaults, and `--set` then changes single fields.
pub(super) fn configuration(args: &LightgcnArgs) -> Result<LightGcnConfig> {
    let mut config = match &args.config {
        None => LightGcnConfig::default(),
        Some(path) => read_toml(path)?,
    };
    for assignment in &args.set {
        settings::set(&mut config, assignment)
            .map_err(|e| format!("--set {assignment}: {}", with_causes(&e)))?;
    }
    config.validate()?;
    Ok(config)
}

/// Parses a TOML file.
pub(super) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(config: &LightGcnConfig, assignment: &str) -> glta_core::Result<LightGcnConfig> {
        let mut config = config.clone();
        settings::set(&mut config, assignment)?;
        Ok(config)
    }

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
    fn invalid_assignments_are_rejected() {
        let config = LightGcnConfig::default();
        assert!(set(&config, "layers").unwrap_err().to_string().contains("PATH=VALUE"));
        assert!(set(&config, "layerz=2").is_err());
        assert!(set(&config, "layers=many").is_err());
    }
}
