//! Opens a recommender from the folder of a run.

use std::path::{Path, PathBuf};

use candle_core::Device;
use glta_align::{Config, LanguageModel, Recommender};

use crate::{Error, Result};

/// A loader of runs and of the language model that they need.
pub(crate) struct Loader {
    /// Folder of the checkpoint of the language model.
    llm: Option<PathBuf>,
    device: Device,
    /// Configuration and language model of the last run, if it needed one. The recommender shares
    /// the weights, so keeping them needs no additional memory.
    language: Option<(Config, LanguageModel)>,
}

impl Loader {
    pub(crate) fn new(llm: Option<&Path>, device: &Device) -> Self {
        Self { llm: llm.map(Path::to_owned), device: device.clone(), language: None }
    }

    /// Returns the folder of the checkpoint.
    pub(crate) fn llm(&self) -> Option<&Path> {
        self.llm.as_deref()
    }

    /// Opens the run in the folder `model`. The checkpoint is loaded only if answers of the run
    /// need it and the language model of the last run had a different checkpoint or different
    /// options.
    pub(crate) fn open(&mut self, model: &Path) -> Result<Recommender> {
        match Recommender::open(model) {
            Err(glta_align::Error::NoLlm) => self.open_with_language(model),
            opened => {
                let opened = opened?;
                self.language = None;
                Ok(opened)
            }
        }
    }

    fn open_with_language(&mut self, model: &Path) -> Result<Recommender> {
        let Some(dir) = &self.llm else {
            return Err(Error::NoLanguageModel { model: model.to_owned() });
        };
        let config = Config::of_run(model)?;
        let kept = self.language.as_ref().filter(|(before, _)| before.llm == config.llm);
        if let Some((_, language)) = kept {
            match Recommender::open_with(model, language) {
                // The folder may contain another checkpoint now.
                Err(glta_align::Error::OtherCheckpoint { .. }) => {}
                opened => return Ok(opened?),
            }
        }
        let language = LanguageModel::load(dir, &config.llm, &self.device)?;
        let opened = Recommender::open_with(model, &language)?;
        self.language = Some((config, language));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support;

    #[test]
    fn a_run_whose_answers_need_no_prompt_opens_without_its_language_model() {
        let run = support::run_with_language(false);
        let mut loader = Loader::new(Some(Path::new("nowhere")), &support::CPU);
        assert_eq!(loader.open(run.path()).unwrap().recommend(0, 3).unwrap().len(), 3);
        assert!(loader.language.is_none());
    }

    #[test]
    fn a_checkpoint_is_loaded_once_for_the_same_options() {
        let run = support::run_with_language(true);
        let llm = tempfile::tempdir().unwrap();
        support::copy(&support::llm(), llm.path());
        let mut loader = Loader::new(Some(llm.path()), &support::CPU);
        let first = loader.open(run.path()).unwrap();
        // From here on, loading the checkpoint again would fail.
        std::fs::remove_file(llm.path().join("config.json")).unwrap();
        let second = loader.open(run.path()).unwrap();
        assert_eq!(first.recommend(0, 3).unwrap(), second.recommend(0, 3).unwrap());

        let path = run.path().join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let other = text.replacen("layers = 1", "layers = 2", 1);
        assert_ne!(text, other);
        std::fs::write(&path, other).unwrap();
        let message = glta_core::with_causes(&loader.open(run.path()).err().unwrap());
        assert!(message.contains("config.json"), "{message}");
        // The language model is still in memory.
        std::fs::write(&path, text).unwrap();
        loader.open(run.path()).unwrap();
    }

    #[test]
    fn a_replaced_checkpoint_is_loaded_again() {
        let run = support::run_with_language(true);
        let llm = tempfile::tempdir().unwrap();
        support::copy(&support::llm(), llm.path());
        let mut loader = Loader::new(Some(llm.path()), &support::CPU);
        loader.open(run.path()).unwrap();
        // The same weights with another settings file are another checkpoint.
        std::fs::write(llm.path().join("generation_config.json"), "{}").unwrap();
        let options = Config::of_run(run.path()).unwrap().llm;
        let changed = LanguageModel::load(llm.path(), &options, &support::CPU).unwrap();
        let record = run.path().join("checkpoint.toml");
        let text = format!("name = \"new\"\nhash = \"{}\"\n", changed.checkpoint_hash().unwrap());
        std::fs::write(&record, text).unwrap();
        loader.open(run.path()).unwrap();
        std::fs::write(&record, "name = \"none\"\nhash = \"0\"\n").unwrap();
        let error = loader.open(run.path()).err().unwrap();
        assert!(
            matches!(error, Error::Align(glta_align::Error::OtherCheckpoint { .. })),
            "{error}"
        );
    }
}
