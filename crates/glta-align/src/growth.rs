//! The state of a growing recommender.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use glta_comm::Alone;
use glta_core::{Silent, TextEncoder};
use glta_data::Interactions;
use glta_linear::{Growing, LinearModel, TextVectors, TfIdf, Whitening};
use ndarray::Array2;

use crate::artifact::{has_vectors, load_vectors};
use crate::data::RunData;
use crate::encoders::{ItemVectors, SavedEncoder, Sentence};
use crate::files::{ENCODERS, LINEAR, TF_IDF, VECTORS, read, whitening_file};
use crate::item_encoder::ItemEncoder;
use crate::language::LanguageModel;
use crate::{Config, Error, Result};

/// The additional state of a recommender that can grow.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) growing: Growing,
    pub(crate) encoders: Vec<(SavedEncoder, Whitening)>,
    /// Items of all users and users of all items, computed on first use and dropped when the
    /// interactions change.
    people: OnceLock<(Interactions, Interactions)>,
    words: Option<TfIdf>,
    language: Option<LanguageModel>,
    sentence: Option<Sentence>,
}

/// Text encoders of a run whose models are not in its folder.
#[derive(Clone, Default)]
pub struct GrowthEncoders<'a> {
    /// Language model of the run, if the run uses it as an encoder.
    pub language: Option<&'a LanguageModel>,
    /// Sentence encoder of the run, if the run uses one.
    pub sentence: Option<Arc<dyn TextEncoder>>,
}

impl Growth {
    /// Reads the data for growing from the folder of a run.
    pub(crate) fn open(
        dir: &Path,
        config: &Config,
        data: &RunData,
        with: GrowthEncoders<'_>,
    ) -> Result<Self> {
        // The folder may lack these files, because answers do not need them.
        let needed = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            if path.exists() {
                return Ok(path);
            }
            Err(Error::file(&path, "missing: the recommender answers without it, but cannot grow"))
        };
        let there = [VECTORS, ENCODERS].iter().any(|name| dir.join(name).exists());
        let text = if there || has_vectors(config, data) {
            load_vectors(&needed(VECTORS)?, data)?
        } else {
            None
        };
        let (mut encoders, mut words) = (Vec::new(), None);
        if text.is_some() {
            let path = needed(ENCODERS)?;
            let saved: Vec<SavedEncoder> =
                serde_json::from_slice(&read(&path)?).map_err(|e| Error::file(&path, e))?;
            for (nth, encoder) in saved.into_iter().enumerate() {
                if encoder.encoder == Some(ItemEncoder::TfIdf) {
                    words = Some(TfIdf::load(needed(TF_IDF)?)?);
                }
                encoders.push((encoder, Whitening::load(needed(&whitening_file(nth))?)?));
            }
        }
        check_given(dir, &encoders, &with)?;
        if !data.valid.is_empty() {
            return Err(Error::Unsupported(
                "only a model that was fitted on all interactions can grow, but this run held some \
                 out for validation: finish it for serving"
                    .into(),
            ));
        }
        let model = LinearModel::load(dir.join(LINEAR), &data.train, text.as_ref())?;
        let growing = Growing::new(model, &data.train, text.as_ref())?;
        let language = with.language.cloned();
        let (people, sentence) = (OnceLock::new(), with.sentence.map(Sentence));
        Ok(Self { growing, encoders, people, words, language, sentence })
    }

    /// Returns the items of all users, and the users of all items.
    pub(crate) fn people(&self) -> Result<&(Interactions, Interactions)> {
        if let Some(people) = self.people.get() {
            return Ok(people);
        }
        let train = self.growing.interactions()?;
        let users_of = train.transpose();
        Ok(self.people.get_or_init(|| (train, users_of)))
    }

    /// Returns the linear model, so that it can be changed.
    pub(crate) fn growing_mut(&mut self) -> &mut Growing {
        self.people = OnceLock::new();
        &mut self.growing
    }

    /// Computes the whitened and concatenated vectors of new texts. Returns `None` if the model has
    /// no text vectors.
    pub(crate) fn encode(&self, config: &Config, texts: &[String]) -> Result<Option<Array2<f32>>> {
        if self.encoders.is_empty() {
            return Ok(None);
        }
        let mut white = Vec::with_capacity(self.encoders.len());
        for (saved, whitening) in &self.encoders {
            let missing = |encoder| Error::EncoderMissing { encoder, name: saved.name.clone() };
            let raw = match saved.encoder {
                Some(ItemEncoder::TfIdf) => {
                    let words = self.words.as_ref().ok_or_else(|| missing(ItemEncoder::TfIdf))?;
                    ItemVectors::encoded_with(words, texts, &mut Silent)?
                }
                Some(ItemEncoder::LanguageModel) => {
                    let none = || missing(ItemEncoder::LanguageModel);
                    let language = self.language.as_ref().ok_or_else(none)?;
                    let how = &config.item_text.language_model;
                    ItemVectors::language_model_on(language, &Alone, texts, how, &mut Silent)?
                }
                Some(ItemEncoder::Sentence) => {
                    let none = || missing(ItemEncoder::Sentence);
                    let Sentence(encoder) = self.sentence.as_ref().ok_or_else(none)?;
                    ItemVectors::encoded_with(&**encoder, texts, &mut Silent)?
                }
                None => {
                    let name = &saved.name;
                    return Err(Error::Unsupported(format!(
                        "the run has given text vectors of {name}, so new items have no such \
                         vectors"
                    )));
                }
            };
            white.push(whitening.apply(raw.vectors().view())?);
        }
        let views: Vec<_> = white.iter().map(|vectors| vectors.view()).collect();
        Ok(Some(TextVectors::join(&views)?.view().to_owned()))
    }
}

/// Returns an error if a given model differs from the one that encoded the texts of the run.
fn check_given(
    dir: &Path,
    encoders: &[(SavedEncoder, Whitening)],
    with: &GrowthEncoders<'_>,
) -> Result<()> {
    for (saved, _) in encoders {
        let other = |recorded: &str, given: String| {
            Err(Error::OtherCheckpoint {
                path: dir.join(ENCODERS),
                recorded: recorded.to_owned(),
                given,
            })
        };
        match (saved.encoder, &saved.checkpoint, with) {
            (
                Some(ItemEncoder::LanguageModel),
                Some(hash),
                GrowthEncoders { language: Some(given), .. },
            ) if given.checkpoint_hash()? != hash => {
                let shown = |name: &str, hash: &str| format!("{name} ({hash:.12})");
                let given = shown(&given.name, given.checkpoint_hash()?);
                return other(&shown(&saved.name, hash), given);
            }
            (Some(ItemEncoder::Sentence), _, GrowthEncoders { sentence: Some(given), .. })
                if given.name() != saved.name =>
            {
                return other(&saved.name, given.name().to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn not_growing() -> Error {
    Error::Unsupported("the recommender cannot grow yet: call `grow` first".into())
}
