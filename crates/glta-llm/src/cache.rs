use crate::cuda::keys::Keys;
use crate::error::{Error, Result};
use crate::kernel::attention::Heads;
use crate::kernel::keys::KeyBlock;
use crate::model::{Inner, Llama, Prefix};
use crate::stack::Batch;
use candle_core::Tensor;

/// Keys and values of one sequence, in every layer.
#[derive(Clone, Debug)]
pub(crate) enum SequenceKeys {
    /// One block for each layer.
    Host(Vec<KeyBlock>),
    Device(Keys),
}

impl SequenceKeys {
    /// None yet, for the layers of a model; `differentiable` for a prefix that
    /// gradients flow past.
    pub(crate) fn new(model: &Inner, differentiable: bool) -> Self {
        let block = |heads: Heads| KeyBlock::new(heads.keys, heads.dim, differentiable);
        let heads = model.layers.iter().map(|layer| layer.heads());
        match &model.accelerator {
            None => Self::Host(heads.map(block).collect()),
            Some(accelerator) => {
                Self::Device(Keys::new(accelerator, model.layers.len(), model.heads()))
            }
        }
    }

    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Host(blocks) => blocks.first().map_or(0, KeyBlock::len),
            Self::Device(keys) => keys.len(),
        }
    }

    /// Whether this was made for such a model.
    pub(crate) fn is_for(&self, model: &Inner) -> bool {
        match self {
            Self::Host(blocks) => {
                blocks.len() == model.layers.len()
                    && blocks.iter().zip(&model.layers).all(|(block, layer)| {
                        let heads = layer.heads();
                        block.is_for(heads.keys, heads.dim)
                    })
                    && model.accelerator.is_none()
            }
            Self::Device(keys) => {
                keys.is_for(model.layers.len(), model.heads()) && model.accelerator.is_some()
            }
        }
    }

    /// Forgets all but the first `len` tokens; nothing where there are fewer.
    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Self::Host(blocks) => blocks.iter_mut().for_each(|block| block.truncate(len)),
            Self::Device(keys) => keys.truncate(len),
        }
    }

    /// Makes room for `tokens` in all.
    pub(crate) fn reserve(&mut self, tokens: usize) -> Result<()> {
        match self {
            Self::Host(blocks) => {
                blocks.iter_mut().for_each(|block| block.reserve(tokens));
                Ok(())
            }
            Self::Device(keys) => keys.reserve(tokens),
        }
    }

    /// Makes `tokens` more part of a cache on the device.
    pub(crate) fn grow_device(&mut self, tokens: usize) -> Result<()> {
        match self {
            Self::Host(_) => Ok(()),
            Self::Device(keys) => keys.grow(tokens),
        }
    }

    pub(crate) fn host(&self, layer: usize) -> Option<&KeyBlock> {
        match self {
            Self::Host(blocks) => blocks.get(layer),
            Self::Device(_) => None,
        }
    }

    pub(crate) fn host_mut(&mut self, layer: usize) -> Option<&mut KeyBlock> {
        match self {
            Self::Host(blocks) => blocks.get_mut(layer),
            Self::Device(_) => None,
        }
    }

    pub(crate) fn device(&self) -> Option<&Keys> {
        match self {
            Self::Host(_) => None,
            Self::Device(keys) => Some(keys),
        }
    }
}

/// Keys and values of one text, in every layer: what has been computed need
/// not be computed again when the text goes on.
///
/// Made by [`Llama::kv_cache`], filled by [`Llama::extend`]. A clone goes on
/// by itself; [`KvCache::truncate`] goes back to an earlier point.
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: SequenceKeys,
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
        KvCache { keys: SequenceKeys::new(&self.inner, false) }
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
        let seq = self.check_batch(embeds, lengths, prefix)?;
        let model = &self.inner;
        if caches.len() != lengths.len() {
            let (caches, rows) = (caches.len(), lengths.len());
            return Err(Error::Input(format!("{caches} caches for a batch of {rows} rows")));
        }
        if caches.iter().any(|cache| !cache.keys.is_for(model)) {
            return Err(Error::Input("the cache belongs to another model".into()));
        }
        if lengths.is_empty() {
            return Ok(embeds.detach());
        }
        let before: Vec<usize> = caches.iter().map(KvCache::len).collect();
        let shared = prefix.map_or(0, Prefix::len);
        let batch = Batch::new(seq, lengths, |row| shared + before[row]);
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        let accelerator = model.accelerator.as_ref();
        let result = model.enter_for(batch.tokens(), || {
            let x = batch.pack(embeds, accelerator)?;
            let mut keys: Vec<_> = caches.iter_mut().map(|cache| &mut cache.keys).collect();
            let (starts, positions) = (&batch.starts, &batch.positions);
            let layers = model.layers.len();
            let x = model.forward_cached(x, starts, positions, prefix, layers, &mut keys)?;
            batch.unpack(&model.norm.forward(&x)?, accelerator)
        });
        if result.is_err() {
            caches.iter_mut().zip(before).for_each(|(cache, len)| cache.truncate(len));
        }
        result
    }
}
