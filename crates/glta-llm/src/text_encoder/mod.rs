//! Sentence encoders in the sentence-transformers format: a BERT with mean pooling.

mod folder;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
use glta_core::{Cancelled, Progress, Silent, TextEncoder, report};
use ndarray::Array2;
use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use self::folder::Folder;
use crate::{Error, Result};

/// Number of texts of similar length in a batch.
const BATCH: usize = 16;

/// A sentence-transformers model on the CPU in f32: a BERT with mean pooling, such as
/// all-MiniLM-L6-v2.
///
/// ```no_run
/// use glta_llm::SentenceEncoder;
///
/// let encoder = SentenceEncoder::load("all-MiniLM-L6-v2")?;
/// let texts = ["a tragedy by Shakespeare", "a hand lotion"].map(String::from);
/// let vectors = encoder.encode(&texts)?;
/// assert_eq!(vectors.dim(), (2, encoder.dim()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SentenceEncoder {
    name: String,
    model: BertModel,
    tokenizer: Tokenizer,
    dim: usize,
    normalize: bool,
    lower_case: bool,
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, dim, normalize, .. } = self;
        f.debug_struct("SentenceEncoder")
            .field("name", name)
            .field("dim", dim)
            .field("normalize", normalize)
            .finish_non_exhaustive()
    }
}

impl SentenceEncoder {
    /// Loads a sentence-transformers folder: `modules.json`, the `config.json` of the pooling, and
    /// the transformer's `config.json`, `model.safetensors`, `tokenizer.json` and optional
    /// `sentence_bert_config.json`.
    ///
    /// # Errors
    /// Returns [`Error::Encoder`] for a missing or damaged file, or for an unsupported
    /// architecture, pooling or module.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let folder = Folder::read(dir)?;
        let path = folder.transformer.join("tokenizer.json");
        let invalid = |e: tokenizers::Error| Error::encoder(&path, e);
        let mut tokenizer = Tokenizer::from_file(&path).map_err(invalid)?;
        if tokenizer.get_vocab_size(true) > folder.config.vocab_size {
            return Err(Error::encoder(
                &path,
                format!("more tokens than the {} of config.json", folder.config.vocab_size),
            ));
        }
        // The file has the settings of its export; the encoder's own settings replace them.
        let truncation = TruncationParams { max_length: folder.max_tokens, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(invalid)?;
        tokenizer.with_padding(None);

        let path = folder.transformer.join("model.safetensors");
        let invalid = |e: candle_core::Error| Error::encoder(&path, e);
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).map_err(invalid)?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = BertModel::load(weights, &folder.config).map_err(invalid)?;
        // Paths such as `.` have no name.
        let whole = dir.canonicalize().map_err(Error::io(dir))?;
        Ok(Self {
            name: whole.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            model,
            tokenizer,
            dim: folder.config.hidden_size,
            normalize: folder.normalize,
            lower_case: folder.lower_case,
        })
    }

    /// Returns the name of the folder, or the name set by [`with_name`](Self::with_name).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Renames the encoder, for example if it is in a folder of the hub's cache, whose name is a
    /// commit.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Returns the dimension of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Computes the vectors of texts, `(texts, dim)`.
    ///
    /// A vector is the mean of the last hidden states over the tokens of a text, scaled to unit
    /// norm if the folder has a `Normalize` module. Texts are truncated to the folder's limit. The
    /// vector of an empty text is zero.
    ///
    /// # Errors
    /// Returns an error if the tokenizer rejects a text, or a tensor operation fails.
    pub fn encode(&self, texts: &[String]) -> Result<Array2<f32>> {
        self.encode_with(texts, &mut Silent)
    }

    /// Encodes texts like [`encode`](Self::encode) and reports the number of finished texts and the
    /// total number.
    ///
    /// # Errors
    /// Returns the errors of [`encode`](Self::encode), and [`Error::Cancelled`].
    pub fn encode_with(
        &self,
        texts: &[String],
        progress: &mut dyn Progress<(usize, usize)>,
    ) -> Result<Array2<f32>> {
        let mut ids = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate().filter(|(_, t)| !t.trim().is_empty()) {
            ids.push((at, self.tokens(text)?));
        }
        // Encode the longest texts first: batches have texts of similar length, and memory peaks at
        // the start.
        ids.sort_by_key(|(at, ids)| (std::cmp::Reverse(ids.len()), *at));
        let mut out = Array2::zeros((texts.len(), self.dim));
        let mut done = texts.len() - ids.len();
        for group in ids.chunks(BATCH * rayon::current_num_threads()) {
            let batches: Vec<&[(usize, Vec<u32>)]> = group.chunks(BATCH).collect();
            let vectors = batches
                .par_iter()
                .map(|batch| self.batch(batch.iter().map(|(_, ids)| ids.as_slice())))
                .collect::<Result<Vec<_>>>()?;
            for ((at, _), vector) in group.iter().zip(vectors.into_iter().flatten()) {
                out.row_mut(*at).iter_mut().zip(vector).for_each(|(out, v)| *out = v);
            }
            done += group.len();
            report(progress, &(done, texts.len()))?;
        }
        Ok(out)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = if self.lower_case {
            self.tokenizer.encode(text.to_lowercase(), true)
        } else {
            self.tokenizer.encode(text, true)
        };
        Ok(encoding.map_err(|e| Error::Tokenizer(e.to_string()))?.get_ids().to_vec())
    }

    /// Computes the vectors of one batch of token ids, padded to the longest text.
    fn batch<'a>(&self, texts: impl Iterator<Item = &'a [u32]> + Clone) -> Result<Vec<Vec<f32>>> {
        let longest = texts.clone().map(<[u32]>::len).max().unwrap_or(0);
        let (mut ids, mut mask, mut rows) = (Vec::new(), Vec::new(), 0);
        for text in texts {
            let padding = longest - text.len();
            ids.extend(text.iter().copied().chain(std::iter::repeat_n(0, padding)));
            mask.extend(std::iter::repeat_n(1f32, text.len()));
            mask.extend(std::iter::repeat_n(0f32, padding));
            rows += 1;
        }
        let ids = Tensor::from_vec(ids, (rows, longest), &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, (rows, longest), &Device::Cpu)?;
        let states = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let sum = states.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
        let mut vectors = sum.broadcast_div(&mask.sum_keepdim(1)?)?;
        if self.normalize {
            let length = (vectors.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-12)?;
            vectors = vectors.broadcast_div(&length)?;
        }
        Ok(vectors.to_vec2()?)
    }
}

impl TextEncoder for SentenceEncoder {
    fn name(&self) -> &str {
        self.name()
    }

    fn dim(&self) -> usize {
        self.dim()
    }

    fn encode(
        &self,
        texts: &[String],
        progress: &mut dyn Progress<(usize, usize)>,
    ) -> std::result::Result<Array2<f32>, Box<dyn std::error::Error + Send + Sync>> {
        self.encode_with(texts, progress).map_err(|error| match error {
            Error::Cancelled => Cancelled.into(),
            other => other.into(),
        })
    }
}

#[cfg(test)]
mod tests;
