use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use glta_llm::{ChatTemplate, Llama, LlamaConfig, LlamaOptions, Tokenizer};

use crate::lazy::Lazy;
use crate::{Result, Templates};

/// A frozen language model with what is needed to talk to it.
///
/// Cheap to clone; clones share the weights.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// What prompts run through; [`LlamaOptions::layers`] may have cut it.
    pub llama: Llama,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Prompts in the model's chat form.
    pub templates: Templates,
    /// What it is called in records, such as the name of its folder.
    pub name: String,
    checkpoint: Arc<Checkpoint>,
}

/// The folder that a model was loaded from, and what is read from it when needed.
#[derive(Debug)]
struct Checkpoint {
    dir: PathBuf,
    /// Of the whole model.
    layers: usize,
    writer: Lazy<Llama>,
    hash: Lazy<String>,
}

impl LanguageModel {
    /// Loads a checkpoint's folder. Prompts are in the form of its own chat template; without
    /// one in the ChatML form when the tokenizer knows its marks, else in the paper's LLaMA-2
    /// form. Set `templates` afterwards for another. A model with fewer layers than [`LlamaOptions::layers`] is
    /// loaded whole.
    ///
    /// # Errors
    /// What [`Llama::load`] and [`Tokenizer::load`] refuse.
    pub fn load(dir: impl AsRef<Path>, options: &LlamaOptions, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let tokenizer = Tokenizer::load(dir)?;
        let templates = match own_form(dir) {
            Some(templates) => templates,
            None if tokenizer.token_to_id("<|im_start|>").is_some() => Templates::chatml()?,
            None => Templates::llama2()?,
        };
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        let layers = LlamaConfig::from_dir(dir)?.num_hidden_layers;
        let kept = options.layers.filter(|&kept| kept < layers);
        let llama = Llama::load(dir, &LlamaOptions { layers: kept, ..options.clone() }, device)?;
        let writer = match kept {
            None => Lazy::ready(llama.clone()),
            Some(_) => Lazy::default(),
        };
        let checkpoint =
            Arc::new(Checkpoint { dir: dir.to_owned(), layers, writer, hash: Lazy::default() });
        Ok(Self { llama, tokenizer, templates, name, checkpoint })
    }

    /// What writes profiles and predictions: always whole, for a model that was cut
    /// says nothing sensible. Where `llama` was cut, the first call loads it from the
    /// checkpoint's folder.
    ///
    /// # Errors
    /// As [`Llama::load`]; the next call tries again.
    pub fn writer(&self) -> Result<&Llama> {
        let Checkpoint { dir, writer, .. } = &*self.checkpoint;
        writer.get(|| Ok(Llama::load(dir, &LlamaOptions::default(), self.llama.device())?))
    }

    /// SHA-256 over the checkpoint's weights, configuration and tokenizer, in
    /// hexadecimal: what a run knows its language model by. It is computed at the first
    /// call, in seconds for several gigabytes, and shared by clones.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for a file that is gone or cannot be read.
    pub fn checkpoint_hash(&self) -> Result<&str> {
        let Checkpoint { dir, hash, .. } = &*self.checkpoint;
        Ok(hash.get(|| crate::hash::hash(dir))?)
    }

    /// Layers of the whole model, however many [`llama`](Self::llama) has.
    pub(crate) fn whole_layers(&self) -> usize {
        self.checkpoint.layers
    }

    /// The same architecture, tokenizer, prompts, writer and hash, with random weights
    /// to run prompts through: the control for what pretraining is worth.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn randomized(&self, seed: u64) -> Result<Self> {
        let llama = Llama::random(self.llama.config(), seed, self.llama.device())?;
        Ok(Self { llama, ..self.clone() })
    }
}

/// Prompts in the form of the checkpoint's own chat template; `None` where it has none, or one
/// that cannot be used, which is no reason to refuse a model that may run no prompt.
fn own_form(dir: &Path) -> Option<Templates> {
    let own = || match ChatTemplate::load(dir)? {
        Some(chat) => Templates::from_chat(&chat).map(Some),
        None => Ok(None),
    };
    own()
        .inspect_err(|error| {
            tracing::warn!("{error}; prompts take a common form (or bring your own: --templates)");
        })
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn load(dir: &Path, layers: Option<usize>) -> LanguageModel {
        let options = LlamaOptions { layers, ..LlamaOptions::default() };
        LanguageModel::load(dir, &options, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_writer_is_loaded_when_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(folder.path());
        let cut = load(folder.path(), Some(1));
        assert_eq!((cut.llama.config().num_hidden_layers, cut.whole_layers()), (1, 2));
        let (config, away) = (folder.path().join("config.json"), folder.path().join("away"));
        std::fs::rename(&config, &away).unwrap();
        assert!(matches!(cut.writer(), Err(Error::Llm(_))), "nothing was loaded before");
        std::fs::rename(&away, &config).unwrap();
        // Several threads get one model.
        let writers: Vec<usize> = std::thread::scope(|scope| {
            let clones: Vec<LanguageModel> = (0..4).map(|_| cut.clone()).collect();
            let writer = |cut: LanguageModel| std::ptr::from_ref(cut.writer().unwrap()).addr();
            let threads: Vec<_> =
                clones.into_iter().map(|cut| scope.spawn(move || writer(cut))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(writers.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(cut.writer().unwrap().config().num_hidden_layers, 2);
        let random = cut.randomized(1).unwrap();
        assert_eq!(std::ptr::from_ref(random.writer().unwrap()).addr(), writers[0]);
    }

    #[test]
    fn a_cut_beyond_the_model_is_none() {
        let folder = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(folder.path());
        let whole = load(folder.path(), Some(6));
        assert_eq!(whole.llama.config().num_hidden_layers, 2);
        let same = std::ptr::eq(whole.writer().unwrap().config(), whole.llama.config());
        assert!(same, "it is its own writer");
    }

    #[test]
    fn an_uncut_model_is_its_own_writer() {
        let folder = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(folder.path());
        let whole = load(folder.path(), None);
        drop(folder);
        let prompt = [vec![1, 5, 9]];
        let states = |llama: &Llama| llama.layer_hidden_states(&prompt[0], 2).unwrap();
        let (a, b) = (states(&whole.llama), states(whole.writer().unwrap()));
        assert_eq!(a.to_vec2::<f32>().unwrap(), b.to_vec2::<f32>().unwrap());
    }
}
