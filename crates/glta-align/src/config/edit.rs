//! Fields by their path, and configurations as TOML.

use std::path::Path;

use super::Config;
use crate::files::{CONFIG, read_text};
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
        let nested = path.rsplit('.').fold(value, |value, part| {
            toml::Value::Table([(part.to_owned(), value)].into_iter().collect())
        });
        *self = merged(self, nested)?;
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
        *self = merged(self, toml::Value::Table(table))?;
        Ok(())
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// A number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::ConfigText(e.to_string()))
    }

    /// The configuration of the run in `dir`, also of one that has not ended.
    /// [`llm`](Self::llm) says how its language model is to be loaded.
    ///
    /// # Errors
    /// A file that is missing or cannot be used.
    pub fn of_run(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(CONFIG);
        Self::from_toml(&read_text(&path)?).map_err(|e| Error::file(&path, e))
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

/// Optional fields that are absent from the serialised form when they are not set.
const OPTIONAL: &[&str] = &["llm.layers"];

/// `config` with the fields that `given`, a table, names.
fn merged(config: &Config, given: toml::Value) -> Result<Config> {
    let mut tree = toml::Value::try_from(config).map_err(|e| Error::ConfigText(e.to_string()))?;
    assign(&mut tree, &[], given)?;
    tree.try_into().map_err(|e: toml::de::Error| Error::ConfigText(e.message().to_owned()))
}

/// Puts `value` where `path` leads in `tree`. A table is put over a table field by
/// field; it replaces what is there where that makes a configuration, which is how
/// an enum with data gets another variant.
fn assign(tree: &mut toml::Value, path: &[&str], value: toml::Value) -> Result<()> {
    let name = path.join(".");
    let wrong = |message: String| Err(Error::ConfigText(message));
    let known: Option<Vec<String>> = at(tree, path).and_then(toml::Value::as_table).map(|table| {
        let optional = OPTIONAL.iter().filter_map(|o| match name.as_str() {
            "" => Some(*o).filter(|o| !o.contains('.')),
            _ => o.strip_prefix(&format!("{name}.")),
        });
        table.keys().map(String::as_str).chain(optional).map(str::to_owned).collect()
    });
    if let (Some(known), toml::Value::Table(fields)) = (&known, &value)
        && fields.keys().all(|field| known.contains(field))
    {
        for (field, value) in fields {
            assign(tree, &[path, &[field.as_str()]].concat(), value.clone())?;
        }
        return Ok(());
    }
    let mut replaced = tree.clone();
    let parent = path
        .split_last()
        .and_then(|(last, parent)| Some((*last, at_mut(&mut replaced, parent)?.as_table_mut()?)));
    let problem = match parent {
        Some((last, parent)) => {
            parent.insert(last.to_owned(), value.clone());
            match replaced.clone().try_into::<Config>() {
                Ok(_) => {
                    *tree = replaced;
                    return Ok(());
                }
                Err(error) => error.message().to_owned(),
            }
        }
        None => String::new(),
    };
    match (known, value) {
        (Some(known), toml::Value::Table(fields)) => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let unknown = fields.keys().find(|field| !known.contains(&field.as_str()));
            let part = unknown.map_or("", String::as_str);
            let full = [path, &[part]].concat().join(".");
            wrong(unknown_field(&full, part, &known))
        }
        (Some(_), _) => wrong(format!("`{name}` has fields; set one of them")),
        (None, toml::Value::Table(_)) => {
            wrong(format!("`{name}` cannot have these fields: {problem}"))
        }
        (None, _) => wrong(format!("{name}: {problem}")),
    }
}

fn at<'a>(tree: &'a toml::Value, path: &[&str]) -> Option<&'a toml::Value> {
    path.iter().try_fold(tree, |node, part| node.get(part))
}

fn at_mut<'a>(tree: &'a mut toml::Value, path: &[&str]) -> Option<&'a mut toml::Value> {
    path.iter().try_fold(tree, |node, part| node.get_mut(part))
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
    fn fields_that_carry_data_are_set_and_changed() {
        use glta_graph::{Loss, Schedule};
        let mut config = Config::default();
        config.merge_toml("[graph]\nschedule = {step = {every = 5, factor = 0.5}}").unwrap();
        assert_eq!(config.graph.schedule, Schedule::Step { every: 5, factor: 0.5 });
        config.merge_toml("[graph.schedule.step]\nfactor = 0.25").unwrap();
        assert_eq!(config.graph.schedule, Schedule::Step { every: 5, factor: 0.25 });
        config.set("graph.schedule={cosine={final_ratio=0.1}}").unwrap();
        assert_eq!(config.graph.schedule, Schedule::Cosine { final_ratio: 0.1 });
        config.set("graph.schedule.cosine.final_ratio=0.2").unwrap();
        assert_eq!(config.graph.schedule, Schedule::Cosine { final_ratio: 0.2 });
        config.set("graph.schedule=constant").unwrap();
        assert_eq!(config.graph.schedule, Schedule::Constant);
        config.set("graph.loss.sampled_softmax.temperature=0.5").unwrap();
        assert_eq!(config.graph.loss, Loss::SampledSoftmax { temperature: 0.5 });
        // A table over a table keeps what it does not name.
        config.set("model={slots=4, history=1}").unwrap();
        assert_eq!((config.model.slots, config.model.history), (4, 1));
        assert_eq!(config.graph.loss, Loss::SampledSoftmax { temperature: 0.5 });
        let before = config.clone();
        for wrong in ["graph.schedule={linear={}}", "graph.schedule.step.evry=2", "graph=3"] {
            let message = config.set(wrong).unwrap_err().to_string();
            assert!(message.contains("graph"), "{wrong}: {message}");
        }
        assert_eq!(config, before);
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
