//! Edits configurations by field paths, and converts them to and from TOML.

use std::path::Path;

use glta_core::settings;

use super::Config;
use crate::files::{CONFIG, read_text};
use crate::{Error, Result};

impl Config {
    /// Sets one field by an assignment to its path, such as `user_stage.train.epochs=3`
    /// ([`glta_core::settings::set`]).
    ///
    /// # Errors
    /// Returns an error if the path does not exist (the message lists similar names), or if the
    /// value has the wrong type.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        Ok(settings::set(self, assignment)?)
    }

    /// Sets the fields that a TOML text names ([`glta_core::settings::merge_toml`]). The other
    /// fields keep their values.
    ///
    /// # Errors
    /// Returns an error if a field is unknown or a value has the wrong type.
    pub fn merge_toml(&mut self, text: &str) -> Result<()> {
        Ok(settings::merge_toml(self, text)?)
    }

    /// Returns the configuration as TOML.
    ///
    /// # Errors
    /// Returns an error if TOML cannot represent a number.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::ConfigText(e.to_string()))
    }

    /// Reads the configuration of the run in `dir`, which may be unfinished. Its field
    /// [`llm`](Self::llm) contains the options with which the run loads the language model.
    ///
    /// # Errors
    /// Returns an error if a file is missing or invalid.
    pub fn of_run(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(CONFIG);
        Self::from_toml(&read_text(&path)?).map_err(|e| Error::file(&path, e))
    }

    /// Parses a configuration that [`to_toml`](Self::to_toml) wrote.
    ///
    /// # Errors
    /// Returns an error if a field is unknown, or a value is invalid or has the wrong type.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| Error::ConfigText(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use glta_gllm::GllmWeights;

    use super::*;
    use crate::{Density, Preset};

    #[test]
    fn presets_are_valid_and_round_trip_through_toml() {
        for preset in [Preset::Default, Preset::Full, Preset::Complete, Preset::Paper] {
            for density in [Density::Dense, Density::Sparse] {
                let config = Config::preset(preset, density);
                config.validate().unwrap();
                assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config);
            }
        }
    }

    #[test]
    fn fields_are_set_by_path() {
        let mut config = Config::preset(Preset::Full, Density::Dense);
        config.set("user_stage.train.epochs=3").unwrap();
        config.set("model.gllm = free").unwrap();
        config.set("user_stage.loss=sampled_slots").unwrap();
        config.set("backbone=random_llm").unwrap();
        config.set("llm.layers=4").unwrap();
        config.set("llm.precision=bf16").unwrap();
        config.set("user_stage.train.learning_rate=1").unwrap();
        assert_eq!(config.user_stage.train.epochs, 3);
        assert_eq!(config.model.gllm, GllmWeights::Free);
        assert_eq!(config.user_stage.loss, crate::TargetLoss::SampledSlots);
        assert_eq!(config.backbone, crate::Backbone::RandomLlm);
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
    fn fields_of_enum_variants_are_set_and_changed() {
        use glta_graph::Schedule;
        let mut config = Config::preset(Preset::Full, Density::Dense);
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
        config.set("graph.schedule.cosine.final_ratio=0.5").unwrap();
        assert_eq!(config.graph.schedule, Schedule::Cosine { final_ratio: 0.5 });
        // Merging a table keeps the other fields.
        config.set("model={slots=4, history=1}").unwrap();
        assert_eq!((config.model.slots, config.model.history), (4, 1));
        assert_eq!(config.graph.schedule, Schedule::Cosine { final_ratio: 0.5 });
        let before = config.clone();
        for assignment in ["graph.schedule={linear={}}", "graph.schedule.step.evry=2", "graph=3"] {
            let message = config.set(assignment).unwrap_err().to_string();
            assert!(message.contains("graph"), "{assignment}: {message}");
        }
        assert_eq!(config, before);
    }

    #[test]
    fn a_file_changes_only_its_own_fields() {
        let mut config = Config::preset(Preset::Paper, Density::Dense);
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
