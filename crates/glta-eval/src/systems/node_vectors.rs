//! Text vectors of users and items for the contrastive models.

use std::sync::Arc;

use glta_align::{ItemEncoder, ItemVectors, read_texts};
use glta_data::Split;
use glta_linear::{WhitenConfig, whiten};
use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::variants::MAIN_FOLDER;
use crate::event::Event;
use crate::seed::Seed;
use crate::{Error, Result};

/// Vectors of item and user texts.
pub(crate) struct NodeVectors {
    pub(crate) items: Array2<f32>,
    pub(crate) users: Array2<f32>,
    /// Name of the encoder.
    pub(crate) encoder: String,
    /// Number of layers of the language model; `None` for a sentence encoder.
    pub(crate) layers: Option<usize>,
    /// Source of the user vectors: `profiles`, or `items` for the mean over the training items.
    pub(crate) users_from: &'static str,
}

impl Seed<'_> {
    /// Returns the vectors of item descriptions and of user texts. The text of a user is the
    /// profile that the main GLTA run of the seed wrote from training items. Without profiles, the
    /// user's vector is the mean over the training items.
    pub(crate) fn node_vectors(&mut self) -> Result<Arc<NodeVectors>> {
        if let Some(vectors) = self.shared.get() {
            return Ok(vectors);
        }
        let profiles = self.profiles()?;
        let mut vectors = self.node_texts()?.vectors().clone();
        let n_items = vectors.nrows();
        if let Some(profiles) = &profiles {
            let profiles = self.encode("profile vectors", profiles)?;
            vectors = concatenate(Axis(0), &[vectors.view(), profiles.view()])
                .map_err(|e| Error::file(self.folder(), e))?;
        }
        let (encoder, layers) = match self.encoder {
            Some(encoder) => (encoder.name().to_owned(), None),
            None => {
                // Whiten, because the raw vectors of a language model are nearly parallel.
                vectors = whiten(vectors.view(), &WhitenConfig::default())?;
                let language = self.language()?;
                let layers = language.llama.config().num_hidden_layers;
                let layers = self.config().glta.item_text.language_model.depth().min(layers);
                (language.name.clone(), Some(layers))
            }
        };
        let (items, written) = vectors.view().split_at(Axis(0), n_items);
        let (users, users_from) = match profiles {
            Some(_) => (written.to_owned(), "profiles"),
            None => (means(items, self.split()), "items"),
        };
        let items = items.to_owned();
        let vectors = NodeVectors { items, users, encoder, layers, users_from };
        Ok(self.shared.put(vectors))
    }

    /// Reads the profile of every user; `None` unless the main run has written all of them.
    fn profiles(&self) -> Result<Option<Vec<String>>> {
        let path = self.folder().join(MAIN_FOLDER).join("texts.jsonl");
        if !self.has(&path)? {
            return Ok(None);
        }
        let mut profiles = vec![String::new(); self.split().train.n_users()];
        for (user, texts) in read_texts(&path)? {
            let profile = profiles.get_mut(user as usize);
            let unknown = || Error::file(&path, format!("there is no user {user}"));
            *profile.ok_or_else(unknown)? = texts.profile;
        }
        // An interrupted run has written only some profiles.
        let train = &self.split().train;
        let missing =
            |(user, profile): (u32, &String)| profile.is_empty() && !train.items(user).is_empty();
        let complete = !(0u32..).zip(&profiles).any(missing);
        Ok(complete.then_some(profiles))
    }

    /// Returns the vectors of all item texts by the sentence encoder, or by the language model if
    /// there is none.
    fn node_texts(&mut self) -> Result<ItemVectors> {
        let encoder = match self.encoder {
            Some(_) => ItemEncoder::Sentence,
            None => ItemEncoder::LanguageModel,
        };
        let read = self.vectors_by(encoder)?;
        read.ok_or_else(|| Error::NoLanguage { system: self.system.clone() })
    }

    /// Encodes texts by the sentence encoder, or by the language model if there is none.
    pub(crate) fn encode(&mut self, work: &str, texts: &[String]) -> Result<Array2<f32>> {
        let (language, encoder) = (self.language, self.encoder);
        let config = &self.config().glta.item_text.language_model;
        let system = self.system.clone();
        let progress = &mut *self.progress;
        match (encoder, language) {
            (Some(encoder), _) => encoder
                .encode(texts, &mut |&(done, total): &(usize, usize)| {
                    let (done, total) = (done as u64, total as u64);
                    progress.report(&Event::Work { work, done, total, note: "" })
                })
                .map_err(|e| Error::system(&system, self.number, e)),
            (None, Some(language)) => {
                let mut report = |event: &glta_align::Event| progress.report(&Event::Run(event));
                Ok(language.text_vectors_with(texts, config, &mut report)?)
            }
            (None, None) => Err(Error::NoLanguage { system }),
        }
    }
}

/// Computes, for each user, the mean of the vectors of the training items, scaled to unit norm.
fn means(items: ArrayView2<'_, f32>, split: &Split) -> Array2<f32> {
    let mut users = Array2::zeros((split.train.n_users(), items.ncols()));
    for (user, mut mean) in (0u32..).zip(users.rows_mut()) {
        for &item in split.train.items(user) {
            mean += &items.row(item as usize);
        }
        let length = mean.dot(&mean).sqrt();
        if length > 0.0 {
            mean /= length;
        }
    }
    users
}
