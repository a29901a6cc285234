use candle_core::{DType, Device};
use glta_comm::Communicator;
use glta_core::{Progress, Silent, report};
use glta_llm::ForwardOptions;
use ndarray::Array2;
use rayon::prelude::*;

use crate::text_recipe::{TextRecipe, TextVectorConfig};
use crate::{Error, Event, LanguageModel, Result};

/// Number of texts between two reports of progress.
const BATCH: usize = 64;

impl LanguageModel {
    /// Computes one vector per text, `(texts, hidden)`. By default, a vector is the mean of the
    /// hidden states of the text's tokens, each scaled to a root mean square of 1. The first token
    /// is omitted if there are others, because its state is the same large vector for every text.
    /// [`TextRecipe`] lists the other recipes. The vector of an empty text is zero.
    ///
    /// Centre and whiten the vectors before you compare them, because all raw vectors are similar.
    ///
    /// ```
    /// use glta_align::{LanguageModel, TextVectorConfig};
    /// use glta_llm::{Device, LlamaOptions};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let language = LanguageModel::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let texts = ["Green tea", "Oak table"].map(String::from);
    /// let vectors = language.text_vectors(&texts, &TextVectorConfig::default())?;
    /// assert_eq!(vectors.dim(), (2, language.llama.config().hidden_size));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of the tokenizer and the model.
    pub fn text_vectors(&self, texts: &[String], config: &TextVectorConfig) -> Result<Array2<f32>> {
        self.text_vectors_with(texts, config, &mut Silent)
    }

    /// Computes the vectors like [`text_vectors`](Self::text_vectors), and reports
    /// [`Event::TextVectors`].
    ///
    /// # Errors
    /// Returns the errors of [`text_vectors`](Self::text_vectors), and [`Error::Cancelled`] if
    /// `progress` cancels.
    pub fn text_vectors_with(
        &self,
        texts: &[impl AsRef<str> + Sync],
        config: &TextVectorConfig,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Array2<f32>> {
        if config.max_tokens == 0 {
            return Err(Error::Data("text vectors of no tokens: raise max_tokens".into()));
        }
        let hidden = self.llama.config().hidden_size;
        let vector = |text: &str| self.text_vector(text, config);
        let mut out = Vec::with_capacity(texts.len() * hidden);
        for batch in texts.chunks(BATCH) {
            // The stream of a GPU belongs to this thread, and a single text uses all of the GPU.
            let vectors = if self.llama.device().is_cpu() {
                let texts = batch.par_iter();
                texts.map(|text| vector(text.as_ref())).collect::<Result<Vec<_>>>()?
            } else {
                batch.iter().map(|text| vector(text.as_ref())).collect::<Result<Vec<_>>>()?
            };
            out.extend(vectors.into_iter().flatten());
            let (done, total) = (out.len() / hidden, texts.len());
            report(progress, &Event::TextVectors { done, total })?;
        }
        Array2::from_shape_vec((texts.len(), hidden), out)
            .map_err(|_| Error::Internal("text vectors of another width than the model's"))
    }

    fn text_vector(&self, text: &str, config: &TextVectorConfig) -> Result<Vec<f32>> {
        let hidden = self.llama.config().hidden_size;
        let text = match text.trim() {
            "" => return Ok(vec![0.0; hidden]),
            text => config.instructed(text),
        };
        let all = self.llama.config().num_hidden_layers;
        let layers = config.depth().min(all);
        let ids = self.text_ids(&text, config)?;
        let last_token = config.recipe != TextRecipe::Mean;
        let states = if last_token && layers == all {
            // `hidden_states` includes the final norm.
            let embeds = self.llama.embed(&ids)?.unsqueeze(0)?;
            let states =
                self.llama.hidden_states(&embeds, &[ids.len()], &ForwardOptions::default())?;
            states.squeeze(0)?
        } else {
            self.llama.layer_hidden_states(&ids, layers)?
        };
        let states = states.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if let Some(last) = states.last().filter(|_| last_token) {
            let length = last.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let factor = 1.0 / length.max(1e-12);
            return Ok(last.iter().map(|&v| (f64::from(v) * factor) as f32).collect());
        }
        let mut mean = vec![0.0; hidden];
        let first = usize::from(states.len() > 1);
        for state in &states[first..] {
            let square = state.iter().map(|v| v * v).sum::<f32>() / hidden as f32;
            let factor = 1.0 / (square.sqrt().max(1e-12) * (states.len() - first) as f32);
            mean.iter_mut().zip(state).for_each(|(mean, v)| *mean += factor * v);
        }
        Ok(mean)
    }

    /// Returns the token ids of a text, truncated to the configured number. If the recipe uses the
    /// last token, the end tokens after the text are not truncated.
    fn text_ids(&self, text: &str, config: &TextVectorConfig) -> Result<Vec<u32>> {
        let most = config.max_tokens.min(self.llama.config().max_position_embeddings);
        let mut ids = self.tokenizer.encode(text, true)?;
        if config.recipe == TextRecipe::Mean {
            ids.truncate(most);
            return Ok(ids);
        }
        let plain = self.tokenizer.encode(text, false)?;
        let mut end = ids.last().copied().filter(|id| plain.last() != Some(id));
        if config.recipe == TextRecipe::E5Mistral && end.is_none() {
            end = self.tokenizer.eos_ids().first().copied();
            ids.extend(end);
        }
        if ids.len() > most {
            ids.truncate(most - usize::from(end.is_some()));
            ids.extend(end);
        }
        Ok(ids)
    }

    /// Computes the vectors like [`text_vectors_with`](Self::text_vectors_with), with the texts
    /// divided among ranks. All ranks get all vectors, which equal those of a single rank.
    /// `progress` counts the texts of the rank.
    ///
    /// # Errors
    /// Returns the errors of [`text_vectors_with`](Self::text_vectors_with), and [`Error::Comm`] if
    /// another rank fails.
    pub fn text_vectors_on(
        &self,
        comm: &dyn Communicator,
        texts: &[impl AsRef<str> + Sync],
        config: &TextVectorConfig,
        progress: &mut dyn Progress<Event>,
    ) -> Result<Array2<f32>> {
        let own = self.text_vectors_with(&texts[comm.share(texts.len())], config, progress)?;
        if comm.size() == 1 {
            return Ok(own);
        }
        let own_values: Vec<f32> = own.iter().copied().collect();
        let all = comm.all_gather_f32(&own_values)?.concat();
        Array2::from_shape_vec((texts.len(), own.ncols()), all)
            .map_err(|_| Error::Internal("ranks have text vectors of different widths"))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use glta_llm::LlamaOptions;

    #[test]
    fn vectors_are_means_of_scaled_states() {
        let dir = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(dir.path());
        let model =
            LanguageModel::load(dir.path(), &LlamaOptions::default(), &Device::Cpu).unwrap();
        let texts = ["Film one", "", "a", "Film one and two, then some more"].map(String::from);
        let config = TextVectorConfig { layers: 1, max_tokens: 5, ..Default::default() };
        let mut calls = Vec::new();
        let got = model
            .text_vectors_with(&texts, &config, &mut |event: &Event| {
                calls.push(event.clone());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(calls, [Event::TextVectors { done: 4, total: 4 }]);
        assert_eq!(model.text_vectors(&texts, &config).unwrap(), got);
        assert!(got.row(1).iter().all(|&v| v == 0.0));
        for row in [0, 3] {
            let mut ids = model.tokenizer.encode(&texts[row], true).unwrap();
            ids.truncate(5);
            let states =
                model.llama.layer_hidden_states(&ids, 1).unwrap().to_vec2::<f32>().unwrap();
            assert!(states.len() > 1);
            let mut expected = vec![0f64; got.ncols()];
            for state in &states[1..] {
                let square: f64 = state.iter().map(|&v| f64::from(v).powi(2)).sum();
                let root = (square / state.len() as f64).sqrt();
                for (e, &v) in expected.iter_mut().zip(state) {
                    *e += f64::from(v) / root / (states.len() - 1) as f64;
                }
            }
            for (got, expected) in got.row(row).iter().zip(&expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-5);
            }
        }
        let stop = &mut |_: &Event| ControlFlow::Break(());
        let cancelled = model.text_vectors_with(&texts, &config, stop);
        assert!(matches!(cancelled, Err(Error::Cancelled)));
        let none = TextVectorConfig { max_tokens: 0, ..config };
        assert!(model.text_vectors(&texts, &none).is_err());
    }
}
