use candle_core::{DType, Device, Tensor};
use glta_llm::ForwardOptions;
use ndarray::Array2;

use crate::{Error, LanguageModel, Result};

/// Number of positions whose vocabulary is scored at once.
const BLOCK: usize = 128;

impl LanguageModel {
    /// Computes hidden states of prompts after the final norm, `(prompts, 2 · hidden)`. A row
    /// consists of the state of the last token, followed by the mean state of all tokens except the
    /// first one, whose state is the same for every prompt. The prompts run as one batch.
    ///
    /// ```
    /// use glta_align::LanguageModel;
    /// use glta_llm::{Device, LlamaOptions};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let language = LanguageModel::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let prompts = [vec![1, 20, 30], vec![1, 7]];
    /// let states = language.prompt_states(&prompts)?;
    /// assert_eq!(states.dim(), (2, 2 * language.llama.config().hidden_size));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if a prompt is empty or longer than the context of the model.
    pub fn prompt_states(&self, prompts: &[Vec<u32>]) -> Result<Array2<f32>> {
        let hidden = self.llama.config().hidden_size;
        let mut out = Array2::zeros((prompts.len(), 2 * hidden));
        if prompts.is_empty() {
            return Ok(out);
        }
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let states = self.states(prompts, &ForwardOptions::default())?;
        let states = states.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        for (row, (mut out, length)) in out.rows_mut().into_iter().zip(lengths).enumerate() {
            let states = states.get(row)?.narrow(0, 0, length)?.to_vec2::<f32>()?;
            let first = usize::from(length > 1);
            let scale = 1.0 / (length - first) as f64;
            for column in 0..hidden {
                out[column] = states[length - 1][column];
                let sum: f64 = states[first..].iter().map(|state| f64::from(state[column])).sum();
                out[hidden + column] = (scale * sum) as f32;
            }
        }
        Ok(out)
    }

    /// Computes the mean log-probability per token of each text after a prompt, `(texts,)`. The
    /// prompt is computed once, and the texts run as one batch.
    ///
    /// ```
    /// use glta_align::LanguageModel;
    /// use glta_llm::{Device, LlamaOptions};
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let language = LanguageModel::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    /// let likelihoods = language.log_likelihoods(&[1, 20], &[vec![30, 31], vec![7]])?;
    /// assert!(likelihoods.len() == 2 && likelihoods.iter().all(|l| *l < 0.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the prompt or a text is empty, or if both together are longer than the
    /// context of the model.
    pub fn log_likelihoods(&self, prompt: &[u32], texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let Some((last, before)) = prompt.split_last() else {
            return Err(Error::Data("the likelihood of texts needs a prompt before them".into()));
        };
        if texts.iter().any(Vec::is_empty) {
            return Err(Error::Data("a text without tokens has no likelihood".into()));
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        // The state of the prompt's last token predicts the first token of a text, and so on.
        let rows: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| std::iter::once(last).chain(text).take(text.len()).copied().collect())
            .collect();
        let prefix = self.llama.prefix(before)?;
        let options = ForwardOptions { prefix: Some(&prefix), ..ForwardOptions::default() };
        let states = self.states(&rows, &options)?;
        let (_, width, hidden) = states.dims3()?;
        let states = states.reshape(((), hidden))?;
        let mut places: Vec<(u32, u32)> = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            let at = |n: usize| (row * width + n) as u32;
            places.extend(text.iter().enumerate().map(|(n, &id)| (at(n), id)));
        }
        let mut of_tokens = Vec::with_capacity(places.len());
        for block in places.chunks(BLOCK) {
            let (at, ids): (Vec<u32>, Vec<u32>) = block.iter().copied().unzip();
            let device = self.llama.device();
            let logits = states.index_select(&Tensor::new(at, device)?, 0)?;
            let logits = self.llama.logits(&logits)?.to_dtype(DType::F32)?;
            let own = logits.gather(&Tensor::new(ids, device)?.unsqueeze(1)?, 1)?.squeeze(1)?;
            let log = (own - logits.log_sum_exp(1)?)?;
            of_tokens.extend(log.to_device(&Device::Cpu)?.to_vec1::<f32>()?);
        }
        let mut of_tokens = of_tokens.into_iter();
        let mean = |text: &Vec<u32>| {
            let sum: f64 = of_tokens.by_ref().take(text.len()).map(f64::from).sum();
            (sum / text.len() as f64) as f32
        };
        Ok(texts.iter().map(mean).collect())
    }

    /// Computes the states of token ids, `(rows, longest row, hidden)`.
    fn states(&self, rows: &[Vec<u32>], options: &ForwardOptions<'_>) -> Result<Tensor> {
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        let padded = rows.iter().flat_map(|row| {
            let padding = std::iter::repeat_n(0, width - row.len());
            row.iter().copied().chain(padding)
        });
        let embeds = self.llama.embed(&padded.collect::<Vec<u32>>())?;
        let embeds = embeds.reshape((rows.len(), width, ()))?;
        Ok(self.llama.hidden_states(&embeds, &lengths, options)?)
    }
}

#[cfg(test)]
mod tests {
    use glta_llm::LlamaOptions;

    use super::*;

    fn language() -> LanguageModel {
        let dir = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(dir.path());
        LanguageModel::load(dir.path(), &LlamaOptions::default(), &Device::Cpu).unwrap()
    }

    /// Computes all states of one prompt in a batch of its own.
    fn alone(language: &LanguageModel, ids: &[u32]) -> Vec<Vec<f32>> {
        let embeds = language.llama.embed(ids).unwrap().unsqueeze(0).unwrap();
        let options = ForwardOptions::default();
        let states = language.llama.hidden_states(&embeds, &[ids.len()], &options).unwrap();
        states.squeeze(0).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn states_are_those_of_each_prompt_alone() {
        let language = language();
        let prompts = [vec![1, 5, 9, 4], vec![2], vec![3, 8]];
        let got = language.prompt_states(&prompts).unwrap();
        let hidden = language.llama.config().hidden_size;
        for (row, prompt) in prompts.iter().enumerate() {
            let states = alone(&language, prompt);
            let rest = if prompt.len() > 1 { &states[1..] } else { &states[..] };
            for column in 0..hidden {
                let mean = rest.iter().map(|s| s[column]).sum::<f32>() / rest.len() as f32;
                let last = states[prompt.len() - 1][column];
                assert!((got[[row, column]] - last).abs() < 1e-5);
                assert!((got[[row, hidden + column]] - mean).abs() < 1e-5);
            }
        }
        assert!(language.prompt_states(&[vec![]]).is_err());
        assert_eq!(language.prompt_states(&[]).unwrap().nrows(), 0);
    }

    #[test]
    fn likelihoods_are_those_of_whole_texts() {
        let language = language();
        let (prompt, texts) = ([1u32, 5, 9], [vec![4u32, 7, 2], vec![3], vec![3, 3]]);
        let got = language.log_likelihoods(&prompt, &texts).unwrap();
        for (text, got) in texts.iter().zip(got) {
            let states = alone(&language, &[&prompt[..], text].concat());
            let mut sum = 0.0;
            for (n, &id) in text.iter().enumerate() {
                let state = Tensor::new(states[prompt.len() - 1 + n].clone(), &Device::Cpu);
                let logits = language.llama.logits(&state.unwrap().unsqueeze(0).unwrap()).unwrap();
                let logits = logits.squeeze(0).unwrap().to_vec1::<f32>().unwrap();
                let total: f64 = logits.iter().map(|&v| f64::from(v).exp()).sum();
                sum += f64::from(logits[id as usize]) - total.ln();
            }
            let expected = sum / text.len() as f64;
            assert!((f64::from(got) - expected).abs() < 1e-4, "{got} {expected}");
        }
        // A prompt of one token is also a prompt.
        assert_eq!(language.log_likelihoods(&[1], &texts).unwrap().len(), 3);
        assert!(language.log_likelihoods(&prompt, &[]).unwrap().is_empty());
        assert!(language.log_likelihoods(&[], &texts).is_err());
        assert!(language.log_likelihoods(&prompt, &[vec![]]).is_err());
    }
}
