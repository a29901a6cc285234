//! Fields by their path, and configurations as TOML.

use super::Config;
use crate::{Error, Result};

impl Config {
    /// Sets one field by its path, such as `user_stage.train.epochs=3`. The value
    /// is read as TOML, or as a string where that fails.
    ///
    /// # Errors
    /// A path that does not exist (with the names that are near), or a value of
    /// the wrong type.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let Some((path, value)) = assignment.split_once('=') else {
            return Err(Error::ConfigText(format!("`{assignment}` is not of the form path=value")));
        };
        let (path, value) = (path.trim(), value.trim());
        let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        // Optional fields are absent from the serialised form; name them here.
        const OPTIONAL: &[&str] = &["llm.layers"];
        let mut tree =
            toml::Value::try_from(&*self).map_err(|e| Error::ConfigText(e.to_string()))?;
        let mut node = &mut tree;
        let parts: Vec<&str> = path.split('.').collect();
        for (depth, part) in parts.iter().enumerate() {
            let here = parts[..depth].join(".");
            let Some(table) = node.as_table_mut() else {
                return Err(Error::ConfigText(format!("`{here}` is a value and has no fields")));
            };
            let last = depth + 1 == parts.len();
            let optional = last && OPTIONAL.contains(&path);
            if !table.contains_key(*part) && !optional {
                let known: Vec<&str> = table
                    .keys()
                    .map(String::as_str)
                    .chain(OPTIONAL.iter().filter_map(|o| o.strip_prefix(&format!("{here}."))))
                    .collect();
                return Err(Error::ConfigText(unknown_field(path, part, &known)));
            }
            if last {
                if table.get(*part).is_some_and(toml::Value::is_table) {
                    return Err(Error::ConfigText(format!("`{path}` has fields; set one of them")));
                }
                table.insert((*part).to_owned(), value.clone());
                break;
            }
            node = &mut table[*part];
        }
        *self = tree
            .try_into()
            .map_err(|e: toml::de::Error| Error::ConfigText(format!("{path}: {}", e.message())))?;
        Ok(())
    }

    /// Reads a configuration in TOML over `self`: fields that are not named keep
    /// their value.
    ///
    /// # Errors
    /// Unknown fields, values of the wrong type.
    pub fn merge_toml(&mut self, text: &str) -> Result<()> {
        let table: toml::Table =
            toml::from_str(text).map_err(|e| Error::ConfigText(e.to_string()))?;
        let mut leaves = Vec::new();
        flatten("", &toml::Value::Table(table), &mut leaves);
        let mut merged = self.clone();
        for leaf in leaves {
            merged.set(&leaf)?;
        }
        *self = merged;
        Ok(())
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::ConfigText(e.to_string()))
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// Unknown fields, values of the wrong type or that cannot work.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| Error::ConfigText(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }
}

fn flatten(path: &str, value: &toml::Value, leaves: &mut Vec<String>) {
    match value.as_table() {
        // A table with one key may be an enum with data; its path does not exist
        // as fields, so it is set as a whole where `set` finds a value.
        Some(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, leaves);
            }
        }
        None => leaves.push(format!("{path}={value}")),
    }
}

fn unknown_field(path: &str, part: &str, known: &[&str]) -> String {
    let mut near: Vec<(usize, &str)> = known.iter().map(|k| (distance(part, k), *k)).collect();
    near.sort();
    let near: Vec<&str> = near.iter().take(3).map(|(_, k)| *k).collect();
    format!("`{path}` does not exist: no field `{part}`; near names: {}", near.join(", "))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use glta_gllm::GllmWeights;

    use super::*;
    use crate::Preset;

    #[test]
    fn presets_are_valid_and_survive_toml() {
        for preset in [Preset::Default, Preset::Paper] {
            let config = Config::preset(preset);
            config.validate().unwrap();
            assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        }
    }

    #[test]
    fn fields_are_set_by_path() {
        let mut config = Config::default();
        config.set("user_stage.train.epochs=3").unwrap();
        config.set("model.gllm = free").unwrap();
        config.set("llm.layers=4").unwrap();
        config.set("llm.precision=bf16").unwrap();
        config.set("user_stage.train.learning_rate=1").unwrap();
        assert_eq!(config.user_stage.train.epochs, 3);
        assert_eq!(config.model.gllm, GllmWeights::Free);
        assert_eq!(config.llm.layers, Some(4));
        assert_eq!(config.llm.precision, glta_llm::Precision::Bf16);
        assert_eq!(config.user_stage.train.learning_rate, 1.0);

        let message = config.set("user_stage.trian.epochs=3").unwrap_err().to_string();
        assert!(message.contains("trian") && message.contains("train"), "{message}");
        let message = config.set("model.slots=many").unwrap_err().to_string();
        assert!(message.contains("model.slots"), "{message}");
        assert!(config.set("model=3").is_err());
        assert!(config.set("model.slots.x=3").is_err());
        assert!(config.set("model.slots").is_err());
    }

    #[test]
    fn a_file_changes_only_what_it_names() {
        let mut config = Config::preset(Preset::Paper);
        config.merge_toml("[model]\nslots = 7\n[llm]\nlayers = 2").unwrap();
        assert_eq!(config.model.slots, 7);
        assert_eq!(config.llm.layers, Some(2));
        assert_eq!(config.model.gllm, GllmWeights::Free);
        let before = config.clone();
        let message = config.merge_toml("[model]\nslots = 8\nslotz = 7").unwrap_err().to_string();
        assert!(message.contains("slotz"), "{message}");
        assert_eq!(config, before);
    }
}
