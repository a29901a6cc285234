//! The text encoders that a program has loaded.

use glta_comm::{Alone, Communicator};
use glta_core::{Progress, TextEncoder};

use super::ItemVectors;
use crate::item_encoder::ItemEncoder;
use crate::{Error, Event, ItemTextConfig, LanguageModel, Result};

/// The text encoders that a program has loaded. TF-IDF is always available, because it is fitted on
/// the texts.
///
/// ```
/// use glta_align::{Encoders, ItemEncoder, ItemTextConfig};
///
/// let texts = ["green tea", "black tea", "oak table", "round oak table"].map(String::from);
/// let (encoders, config) = (Encoders::default(), ItemTextConfig::default());
/// let vectors = encoders.encode(ItemEncoder::TfIdf, &texts, &config, &mut glta_core::Silent)?;
/// assert_eq!(vectors.unwrap().vectors().nrows(), 4);
/// // No language model is loaded.
/// assert!(encoders
///     .encode(ItemEncoder::LanguageModel, &texts, &config, &mut glta_core::Silent)
///     .is_err());
/// # Ok::<(), glta_align::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Encoders<'a> {
    /// Language model, if one is loaded.
    pub language: Option<&'a LanguageModel>,
    /// Sentence encoder, if one is loaded.
    pub sentence: Option<&'a dyn TextEncoder>,
    /// Ranks that divide the texts for the language model.
    pub comm: &'a dyn Communicator,
}

impl Default for Encoders<'_> {
    fn default() -> Self {
        Self { language: None, sentence: None, comm: &Alone }
    }
}

impl Encoders<'_> {
    /// Computes the vectors of texts with one encoder. Returns `None`, with a warning, if TF-IDF
    /// finds no words that distinguish the texts.
    ///
    /// # Errors
    /// Returns [`Error::NoLlm`] if there is no language model, [`Error::Config`] if there is no
    /// sentence encoder, [`Error::Cancelled`] if `progress` cancels, and the errors of the encoder.
    pub fn encode(
        &self,
        encoder: ItemEncoder,
        texts: &[String],
        config: &ItemTextConfig,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Option<ItemVectors>> {
        match encoder {
            ItemEncoder::LanguageModel => {
                let (language, how) = (self.language.ok_or(Error::NoLlm)?, &config.language_model);
                ItemVectors::language_model_on(language, self.comm, texts, how, progress).map(Some)
            }
            ItemEncoder::TfIdf => match ItemVectors::tf_idf_with(texts, &config.tf_idf, progress) {
                Err(Error::Linear(glta_linear::Error::TextVectors(problem))) => {
                    tracing::warn!("TF-IDF is left out: {problem}");
                    Ok(None)
                }
                vectors => vectors.map(Some),
            },
            ItemEncoder::Sentence => {
                let sentence = self.sentence.ok_or_else(|| Error::Config {
                    field: "item_text.encoders".into(),
                    problem: "they contain `sentence`, but there is no sentence encoder".into(),
                })?;
                ItemVectors::encoded_with(sentence, texts, progress).map(Some)
            }
        }
    }
}
