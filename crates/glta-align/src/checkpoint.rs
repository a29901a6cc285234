//! Records the checkpoint and the prompts in the folder of a run, and checks them when it is
//! opened.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{CHECKPOINT, PROMPTS, RunFolder, read_text, write_whole};
use crate::language::LanguageModel;
use crate::{Error, Result, Templates};

/// The record of a checkpoint in the folder of a run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Name of the checkpoint for messages. The same files under a different name are accepted.
    name: String,
    /// SHA-256 over the hashes of the files' chunks, in hexadecimal.
    hash: String,
}

impl Record {
    fn of(language: &LanguageModel) -> Result<Self> {
        Ok(Self { name: language.name.clone(), hash: language.checkpoint_hash()?.to_owned() })
    }

    fn check(&self, given: &Self, path: &Path) -> Result<()> {
        if self.hash == given.hash {
            return Ok(());
        }
        Err(Error::OtherCheckpoint {
            path: path.to_owned(),
            recorded: self.to_string(),
            given: given.to_string(),
        })
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:.12})", self.name, self.hash)
    }
}

/// Writes the record of the checkpoint to the folder of a run, and the prompts if the run has any.
/// Returns an error if the folder already contains the record of a different checkpoint or
/// different prompts.
pub(crate) fn record(folder: &RunFolder, language: &LanguageModel, prompts: bool) -> Result<()> {
    folder.write(CHECKPOINT, |path| {
        let given = Record::of(language)?;
        if path.exists() {
            return read_toml::<Record>(path)?.check(&given, path);
        }
        write_toml(path, &given)
    })?;
    if !prompts {
        return Ok(());
    }
    folder.write(PROMPTS, |path| {
        language.templates.validate()?;
        if !path.exists() {
            return write_toml(path, &language.templates);
        }
        if Templates::load(path)? != language.templates {
            return Err(Error::file(
                path,
                "the run was started with other prompts; resume it with these or choose \
                 another folder",
            ));
        }
        Ok(())
    })
}

/// Returns the language model with the recorded prompts of the run in `dir`. A run without prompts
/// may have used no language model. It then accepts any language model.
///
/// # Errors
/// Returns an error if the checkpoint of the model differs from the recorded one.
pub(crate) fn recorded(
    dir: &Path,
    language: &LanguageModel,
    prompts: bool,
) -> Result<LanguageModel> {
    let path = dir.join(CHECKPOINT);
    // The text vectors of this run were given, so it used no language model.
    if !prompts && !path.exists() {
        return Ok(language.clone());
    }
    read_toml::<Record>(&path)?.check(&Record::of(language)?, &path)?;
    let mut language = language.clone();
    if prompts {
        language.templates = Templates::load(dir.join(PROMPTS))?;
    }
    Ok(language)
}

fn read_toml<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    toml::from_str(&read_text(path)?).map_err(|e| Error::file(path, e.message()))
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = toml::to_string_pretty(value).map_err(|e| Error::file(path, e))?;
    write_whole(path, text.as_bytes())
}
