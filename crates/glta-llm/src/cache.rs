use crate::error::{Error, Result};
use crate::kernel::keys::KeyBlock;
use crate::model::Llama;
use crate::pool;
use candle_core::{DType, Tensor};

/// Keys and values of one text, in every layer: what has been computed need
/// not be computed again when the text goes on.
///
/// Made by [`Llama::kv_cache`], filled by [`Llama::extend`]. A clone goes on
/// by itself; [`KvCache::truncate`] goes back to an earlier point.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// `[layer][0]`
    blocks: Vec<Vec<KeyBlock>>,
}

impl KvCache {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.blocks.first().and_then(|b| b.first()).map_or(0, KeyBlock::len)
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the first `len` tokens; nothing where there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.blocks.iter_mut().flatten().for_each(|block| block.truncate(len));
    }
}

impl Llama {
    /// An empty cache for this model.
    pub fn kv_cache(&self) -> KvCache {
        KvCache { blocks: self.inner.new_caches(1, false) }
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
        let model = &self.inner;
        let hidden = self.config().hidden_size;
        let len = match embeds.dims() {
            &[len, width] if width == hidden && embeds.dtype() == DType::F32 => len,
            dims => {
                return Err(Error::Input(format!(
                    "embeds is {dims:?} of {:?}, expected (len, {hidden}) of F32",
                    embeds.dtype()
                )));
            }
        };
        let fits = cache.blocks.len() == model.layers.len()
            && cache.blocks.iter().flatten().zip(&model.layers).all(|(block, layer)| {
                let heads = layer.heads();
                block.is_for(heads.keys, heads.dim)
            });
        if !fits {
            return Err(Error::Input("the cache belongs to another model".into()));
        }
        let x = embeds.detach().contiguous()?;
        if len == 0 {
            return Ok(x);
        }
        let start = cache.len();
        let positions: Vec<u32> = (start..start + len).map(|p| p as u32).collect();
        let result = pool::enter_for(len, || {
            let x = model.forward_cached(x, &[0, len], &positions, None, &mut cache.blocks)?;
            model.norm.forward(&x)
        });
        if result.is_err() {
            cache.truncate(start);
        }
        result
    }
}
