//! Text vectors of the items. Those of each encoder are whitened and then concatenated.

mod available;
mod file;

use std::path::Path;
use std::sync::Arc;

use glta_comm::{Alone, Communicator};
use glta_core::{Progress, Silent, TextEncoder};
use glta_linear::{TextVectors, TfIdf, TfIdfConfig, WhitenConfig, Whitening};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::item_encoder::ItemEncoder;
use crate::{Error, Event, LanguageModel, Result, TextVectorConfig};

pub use available::Encoders;

/// A sentence encoder that implements `Debug`.
pub(crate) struct Sentence(pub(crate) Arc<dyn TextEncoder>);

impl std::fmt::Debug for Sentence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sentence").field(&self.0.name()).finish()
    }
}

/// The record of an encoder in `text_encoders.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedEncoder {
    /// Kind of the encoder, or `None` for given vectors.
    pub(crate) encoder: Option<ItemEncoder>,
    pub(crate) name: String,
    /// Hash of the checkpoint, if the encoder is a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<String>,
}

/// The vectors of all item texts by one encoder, `(items, dim)`, before whitening. An item without
/// a text has a vector of zeros.
///
/// ```
/// use glta_align::ItemVectors;
/// use glta_linear::{TfIdfConfig, WhitenConfig};
///
/// let texts = ["green tea", "black tea", "oak table", "round oak table"].map(String::from);
/// let words = ItemVectors::tf_idf(&texts, &TfIdfConfig::default())?;
/// let (joined, _) = ItemVectors::join(&[words], &WhitenConfig::default())?;
/// assert_eq!(joined.n_items(), 4);
/// # Ok::<(), glta_align::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ItemVectors {
    name: String,
    /// Kind of the encoder, or `None` for given vectors.
    encoder: Option<ItemEncoder>,
    /// Hash of the checkpoint, if the encoder is a language model.
    checkpoint: Option<String>,
    vectors: Arc<Array2<f32>>,
    tf_idf: Option<Arc<TfIdf>>,
}

impl ItemVectors {
    /// Creates item vectors from given vectors, `(items, dim)`.
    pub fn new(name: impl Into<String>, vectors: Array2<f32>) -> Self {
        let (name, vectors) = (name.into(), Arc::new(vectors));
        Self { name, encoder: None, checkpoint: None, vectors, tf_idf: None }
    }

    fn by(mut self, encoder: ItemEncoder) -> Self {
        self.encoder = Some(encoder);
        self
    }

    /// Computes the vectors with [`LanguageModel::text_vectors`].
    ///
    /// # Errors
    /// Returns the errors of the language model.
    pub fn language_model(
        language: &LanguageModel,
        texts: &[impl AsRef<str> + Sync],
        config: &TextVectorConfig,
    ) -> Result<Self> {
        Self::language_model_on(language, &Alone, texts, config, &mut Silent)
    }

    /// Computes the vectors like [`language_model`](Self::language_model), with the texts divided
    /// among ranks, and reports progress.
    ///
    /// # Errors
    /// Returns the errors of the model, [`Error::Comm`] if another rank fails, [`Error::Cancelled`]
    /// if `progress` cancels, and an error if the files of the checkpoint are missing.
    pub fn language_model_on(
        language: &LanguageModel,
        comm: &dyn Communicator,
        texts: &[impl AsRef<str> + Sync],
        config: &TextVectorConfig,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Self> {
        let vectors = language.text_vectors_on(comm, texts, config, progress)?;
        let checkpoint = Some(language.checkpoint_hash()?.to_owned());
        let vectors = Self::new(language.name.clone(), vectors).by(ItemEncoder::LanguageModel);
        Ok(Self { checkpoint, ..vectors })
    }

    /// Fits [`TfIdf`] on the texts and computes their vectors.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, if no word occurs in enough texts, or if all texts
    /// have the same words.
    pub fn tf_idf(texts: &[impl AsRef<str> + Sync], config: &TfIdfConfig) -> Result<Self> {
        Self::tf_idf_with(texts, config, &mut Silent)
    }

    /// Computes the vectors like [`tf_idf`](Self::tf_idf), and reports progress.
    ///
    /// # Errors
    /// Returns the errors of [`tf_idf`](Self::tf_idf), and [`Error::Cancelled`] if `progress`
    /// cancels.
    pub fn tf_idf_with(
        texts: &[impl AsRef<str> + Sync],
        config: &TfIdfConfig,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Self> {
        let (total, mut before) = (texts.len(), 0);
        // The fit processes all texts several times. The reported progress is the share of its
        // steps.
        let steps = &mut |&(done, steps): &(usize, usize)| {
            before = total * done / (steps + 1);
            progress.report(&Event::TextVectors { done: before, total })
        };
        let encoder = TfIdf::fit_with(texts, config, steps)?;
        let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let rest = &mut |event: &Event| match *event {
            Event::TextVectors { done, total } => {
                let done = before + (total - before) * done / total.max(1);
                progress.report(&Event::TextVectors { done, total })
            }
            _ => progress.report(event),
        };
        let vectors = Self::encoded_with(&encoder, &texts, rest)?;
        file::check_distinct(vectors.vectors.view()).map_err(glta_linear::Error::TextVectors)?;
        let mut vectors = vectors.by(ItemEncoder::TfIdf);
        vectors.tf_idf = Some(Arc::new(encoder));
        Ok(vectors)
    }

    /// Computes the vectors with any text encoder.
    ///
    /// # Errors
    /// Returns the errors of the encoder.
    pub fn encoded(encoder: &dyn TextEncoder, texts: &[String]) -> Result<Self> {
        Self::encoded_with(encoder, texts, &mut Silent)
    }

    /// Computes the vectors like [`encoded`](Self::encoded), and reports progress.
    ///
    /// # Errors
    /// Returns the errors of the encoder, and [`Error::Cancelled`] if `progress` cancels.
    pub fn encoded_with(
        encoder: &dyn TextEncoder,
        texts: &[String],
        progress: &mut dyn Progress<Event>,
    ) -> Result<Self> {
        let report = &mut |&(done, total): &(usize, usize)| {
            progress.report(&Event::TextVectors { done, total })
        };
        let vectors = encoder.encode(texts, report).map_err(|e| {
            if e.is::<glta_core::Cancelled>() { Error::Cancelled } else { Error::Encoder(e) }
        })?;
        Ok(Self::new(encoder.name(), vectors).by(ItemEncoder::Sentence))
    }

    /// Reads vectors from a file by raw id, in the order of `raw_ids`. An item that is not in the
    /// file gets a vector of zeros. The file is
    ///
    /// - `NAME.npy` (NumPy, `(vectors, dim)`, f32 or f64) with `NAME.npy.ids`, one raw id per line;
    /// - or `NAME.safetensors` with the tensor `vectors` (F32 or F64) and its ids in the metadata
    ///   entry `ids`, a JSON array of strings, or in `NAME.safetensors.ids`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, if the ids do not match the vectors or are
    /// repeated, or if the file contains none of the items.
    pub fn file<'a>(
        path: impl AsRef<Path>,
        raw_ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self::new(name, file::vectors_of(path, raw_ids)?))
    }

    /// Returns the name of the encoder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the vectors before whitening, `(items, dim)`.
    pub fn vectors(&self) -> &Array2<f32> {
        &self.vectors
    }

    /// Returns the record of the encoder for the folder of a run.
    pub(crate) fn saved(&self) -> SavedEncoder {
        let (name, checkpoint) = (self.name.clone(), self.checkpoint.clone());
        SavedEncoder { encoder: self.encoder, name, checkpoint }
    }

    /// Returns the TF-IDF encoder that was fitted on the texts. Other encoders are not saved with
    /// the run.
    pub(crate) fn fitted(&self) -> Option<&TfIdf> {
        self.tf_idf.as_deref()
    }

    /// Whitens the vectors of each encoder separately and concatenates them, divided by the square
    /// root of the number of encoders. The whitenings are in the order of the encoders.
    ///
    /// # Errors
    /// Returns an error if there is no encoder, if the numbers of items differ, or if fewer than
    /// two items have a text.
    pub fn join(encoders: &[Self], config: &WhitenConfig) -> Result<(TextVectors, Vec<Whitening>)> {
        let mut white = Vec::with_capacity(encoders.len());
        let mut whitenings = Vec::with_capacity(encoders.len());
        for encoder in encoders {
            let whitening = Whitening::fit(encoder.vectors.view(), config)?;
            white.push(whitening.apply(encoder.vectors.view())?);
            whitenings.push(whitening);
        }
        let views: Vec<_> = white.iter().map(|vectors| vectors.view()).collect();
        Ok((TextVectors::join(&views)?, whitenings))
    }
}
