use candle_core::Tensor;
use glta_kernels::Sequences;

use crate::erased::AnyKeys;
use crate::error::{Error, Result};
use crate::model::{Llama, Prefix};

/// Key-value cache of one text, with the keys and values of every layer.
///
/// [`Llama::kv_cache`] creates a cache and [`Llama::extend`] appends tokens. Clones are independent
/// of each other. [`KvCache::truncate`] returns to an earlier position.
///
/// ```
/// use glta_llm::{Device, Llama, LlamaOptions};
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
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
    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` tokens and removes the others. Does nothing if there are fewer tokens.
    pub fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
    }
}

impl Llama {
    /// Creates an empty cache for this model.
    pub fn kv_cache(&self) -> KvCache {
        KvCache { keys: self.network.keys(false) }
    }

    /// Appends `embeds: (len, hidden)`, f32, to the tokens in `cache`. Returns the hidden states of
    /// the new tokens after the final norm, `(len, hidden)`; [`Self::logits`] computes the logits
    /// of the next tokens from them. The result is not differentiable.
    ///
    /// The states do not depend on how a text is divided into calls.
    ///
    /// # Errors
    /// Returns an error for a wrong shape or dtype, a cache of a different model, or more tokens
    /// than the model's context. The cache is then unchanged.
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

    /// Extends several texts at once, like [`Self::extend`] for each. Each row continues its own
    /// cache, and all caches continue `prefix`, which must be the same in every call.
    ///
    /// `embeds: (batch, seq, hidden)`, f32, is right-padded, and `lengths` contains the number of
    /// tokens of each row. The states are zero at padded positions. The states of a row do not
    /// depend on the other rows.
    ///
    /// # Errors
    /// Returns the errors of [`Self::extend`], and an error if the number of caches differs from
    /// the number of rows. The caches are then unchanged.
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
