use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use glta_llm::{ChatTemplate, Llama, LlamaConfig, LlamaOptions, Tokenizer};

use crate::lazy::Lazy;
use crate::{Result, Templates};

/// A frozen language model with its tokenizer and prompts. Clones share the weights.
///
/// ```
/// use candle_core::Device;
/// use glta_align::LanguageModel;
/// use glta_llm::LlamaOptions;
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
/// let language = LanguageModel::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
/// assert_eq!(language.checkpoint_hash()?.len(), 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// Model that runs prompts. [`LlamaOptions::layers`] may limit its layers.
    pub llama: Llama,
    /// Tokenizer of the model.
    pub tokenizer: Tokenizer,
    /// Templates of the prompts, in the chat form of the model.
    pub templates: Templates,
    /// Name of the model in records, such as the name of its folder.
    pub name: String,
    checkpoint: Arc<Checkpoint>,
}

/// The folder of a checkpoint, and values that are computed from its files on first use.
#[derive(Debug)]
struct Checkpoint {
    dir: PathBuf,
    /// Number of layers of the complete model.
    layers: usize,
    writer: Lazy<Llama>,
    hash: Lazy<String>,
}

impl LanguageModel {
    /// Loads a checkpoint from its folder. Prompts have the form of its chat template. Without a
    /// chat template, they have the ChatML form if the tokenizer knows the special tokens of
    /// ChatML, and otherwise the LLaMA-2 form. To use a different form, set `templates` afterwards.
    /// A model with fewer layers than [`LlamaOptions::layers`] is loaded completely.
    ///
    /// # Errors
    /// Returns the errors of [`Llama::load`] and [`Tokenizer::load`].
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

    /// Returns the complete model, which writes profiles and predictions. If `llama` has fewer
    /// layers, it cannot write sensible texts, so the first call loads the complete model from the
    /// checkpoint's folder.
    ///
    /// # Errors
    /// Returns the errors of [`Llama::load`]. After an error, the next call tries again.
    pub fn writer(&self) -> Result<&Llama> {
        let Checkpoint { dir, writer, .. } = &*self.checkpoint;
        writer.get(|| Ok(Llama::load(dir, &LlamaOptions::default(), self.llama.device())?))
    }

    /// Returns the SHA-256 of the checkpoint's weights, configuration and tokenizer, in
    /// hexadecimal. A run identifies its language model by this hash. The first call computes the
    /// hash, which takes seconds for several gigabytes, and clones share it.
    ///
    /// # Errors
    /// Returns [`Error::Io`](crate::Error::Io) if a file is missing or cannot be read.
    pub fn checkpoint_hash(&self) -> Result<&str> {
        let Checkpoint { dir, hash, .. } = &*self.checkpoint;
        Ok(hash.get(|| crate::hash::hash(dir))?)
    }

    /// Returns the number of layers of the complete model.
    pub(crate) fn whole_layers(&self) -> usize {
        self.checkpoint.layers
    }

    /// Returns a copy of the model that runs prompts on random weights, as a control for the effect
    /// of pretraining. The architecture, the tokenizer, the templates, the hash and the model that
    /// writes texts stay the same.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub fn randomized(&self, seed: u64) -> Result<Self> {
        let llama = Llama::random(self.llama.config(), seed, self.llama.device())?;
        Ok(Self { llama, ..self.clone() })
    }
}

/// Returns prompts in the form of the checkpoint's chat template. Returns `None`, with a warning,
/// if the template is missing or unusable, because a model without prompts does not need it.
fn own_form(dir: &Path) -> Option<Templates> {
    let own = || match ChatTemplate::load(dir)? {
        Some(chat) => Templates::from_chat(&chat).map(Some),
        None => Ok(None),
    };
    own()
        .inspect_err(|error| {
            tracing::warn!(
                "{error}; prompts use the common form; `--templates FILE` gives another one"
            );
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
    fn the_writer_is_loaded_on_demand() {
        let folder = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(folder.path());
        let cut = load(folder.path(), Some(1));
        assert_eq!((cut.llama.config().num_hidden_layers, cut.whole_layers()), (1, 2));
        let (config, away) = (folder.path().join("config.json"), folder.path().join("away"));
        std::fs::rename(&config, &away).unwrap();
        assert!(matches!(cut.writer(), Err(Error::Llm(_))), "nothing was loaded before");
        std::fs::rename(&away, &config).unwrap();
        // Several threads get the same model.
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
    fn more_layers_than_the_model_has_load_all() {
        let folder = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(folder.path());
        let whole = load(folder.path(), Some(6));
        assert_eq!(whole.llama.config().num_hidden_layers, 2);
        let same = std::ptr::eq(whole.writer().unwrap().config(), whole.llama.config());
        assert!(same, "it is its own writer");
    }

    #[test]
    fn a_complete_model_is_its_own_writer() {
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
