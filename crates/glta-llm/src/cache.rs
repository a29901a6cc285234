use candle_core::Tensor;
use glta_kernels::Sequences;

use crate::erased::AnyKeys;
use crate::error::{Error, Result};
use crate::model::{Llama, Prefix};

/// Keys and values of one text, in every layer: what has been computed need
/// not be computed again when the text goes on.
///
/// Made by [`Llama::kv_cache`], filled by [`Llama::extend`]. A clone goes on
/// by itself; [`KvCache::truncate`] goes back to an earlier point.
///
/// ```
/// use glta_llm::{Device, Llama, LlamaOptions};
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
/// let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
/// let mut cache = llama.kv_cache();
/// llama.extend(&llama.embed(&[1, 20, 30])?, &mut cache)?;
/// // Only the new token is computed: (1, hidden).
/// let states = llama.extend(&llama.embed(&[40])?, &mut cache)?;
/// assert_eq!((states.dims()[0], cache.len()), (1, 4));
/// cache.truncate(3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct KvCache {
    keys: Box<dyn AnyKeys>,
}

impl Clone for KvCache {
    fn clone(&self) -> Self {
        Self { keys: self.keys.boxed() }
    }
}

impl KvCache {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the first `len` tokens; nothing where there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
    }
}

impl Llama {
    /// An empty cache for this model.
    pub fn kv_cache(&self) -> KvCache {
        KvCache { keys: self.network.keys(false) }
    }

    /// Hidden states after the final norm, `(len, hidden)`, of `embeds: (len,
    /// hidden)` f32 behind the tokens in `cache`, which then holds these too.
    /// Frozen; [`Self::logits`] turns the states into scores.
    ///
    /// However a text is cut into calls, its states come out the same.
    ///
    /// # Errors
    /// A shape or dtype that does not fit, a cache of another model, more
    /// tokens than the model's context. The cache is then as it was.
    pub fn extend(&self, embeds: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let &[len, _] = embeds.dims() else {
            return Err(Error::Input(format!(
                "embeds has shape {:?}, expected (len, hidden)",
                embeds.shape()
            )));
        };
        if len == 0 {
            return Ok(embeds.detach());
        }
        let caches = std::slice::from_mut(cache);
        Ok(self.extend_batch(&embeds.unsqueeze(0)?, &[len], None, caches)?.squeeze(0)?)
    }

    /// [`Self::extend`] of many texts at once, each behind the tokens of its own cache,
    /// and all of them behind `prefix`, which must then be the same in every call.
    ///
    /// `embeds: (batch, seq, hidden)` f32 is right-padded, `lengths` holds the number of
    /// real tokens of every row; so are the states, which are zero where padded. A
    /// row's states are those that it would have by itself.
    ///
    /// # Errors
    /// As [`Self::extend`], and as many caches as rows. The caches are then as they were.
    pub fn extend_batch(
        &self,
        embeds: &Tensor,
        lengths: &[usize],
        prefix: Option<&Prefix>,
        caches: &mut [KvCache],
    ) -> Result<Tensor> {
        self.check_batch(embeds, lengths)?;
        if caches.len() != lengths.len() {
            let (caches, rows) = (caches.len(), lengths.len());
            return Err(Error::Input(format!("{caches} caches for a batch of {rows} rows")));
        }
        if lengths.is_empty() {
            return Ok(embeds.detach());
        }
        let before: Vec<usize> = caches.iter().map(KvCache::len).collect();
        let shared = prefix.map_or(0, Prefix::len);
        let sequences = Sequences::new(lengths, |row| shared + before[row]);
        let keys = caches.iter_mut().map(|cache| &mut *cache.keys).collect();
        let prefix = prefix.map(|prefix| &prefix.keys);
        let result = self.network.extend(embeds, sequences, prefix, keys);
        if result.is_err() {
            caches.iter_mut().zip(before).for_each(|(cache, len)| cache.truncate(len));
        }
        result
    }
}
