//! Type-erased models and caches, for any backend.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use glta_kernels::{Backend, Keys, Sequences, SimdLevel};

use crate::config::LlamaConfig;
use crate::error::{Error, Result};
use crate::layer::heads;
use crate::network::{Keep, Network};
use crate::selected::Selected;
use crate::stack::{Logits, Rows, Stack};

/// Keys and values of one sequence, in every layer, on any backend.
pub(crate) trait AnyKeys: Any + Debug + Send + Sync {
    /// Returns the number of tokens.
    fn len(&self) -> usize;
    /// Keeps the first `len` tokens and removes the others. Does nothing if there are fewer tokens.
    fn truncate(&mut self, len: usize);
    /// Reserves capacity for `tokens` tokens in total.
    fn reserve(&mut self, tokens: usize) -> Result<()>;
    fn boxed(&self) -> Box<dyn AnyKeys>;
}

impl<K: Keys> AnyKeys for K {
    fn len(&self) -> usize {
        Keys::len(self)
    }

    fn truncate(&mut self, len: usize) {
        Keys::truncate(self, len);
    }

    fn reserve(&mut self, tokens: usize) -> Result<()> {
        Ok(Keys::reserve(self, tokens)?)
    }

    fn boxed(&self) -> Box<dyn AnyKeys> {
        Box::new(self.clone())
    }
}

/// A [`Network`] on any backend.
pub(crate) trait AnyNetwork: Debug + Send + Sync {
    fn config(&self) -> &LlamaConfig;
    fn device(&self) -> &Device;
    fn simd_level(&self) -> Option<SimdLevel>;
    fn resident_bytes(&self) -> usize;
    fn free_memory(&self) -> Result<Option<usize>>;
    fn embedding_rms(&self) -> f32;

    /// Returns the embeddings of token ids, `(len, hidden)` f32.
    fn embed(&self, ids: &[u32]) -> Result<Tensor>;

    /// Creates an empty cache. A prefix in front of rows with gradients must be `differentiable`.
    fn keys(&self, differentiable: bool) -> Box<dyn AnyKeys>;

    /// Computes the hidden states of a right-padded batch after the final norm, `(batch, seq,
    /// hidden)`. They are differentiable unless `keep` is `Keep::Nothing`. With `at`, different
    /// indices of packed tokens, only these rows are computed, `(at, hidden)`.
    fn hidden_states(
        self: Arc<Self>,
        embeds: &Tensor,
        sequences: Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        keep: Keep,
        at: Option<&[u32]>,
    ) -> Result<Tensor>;

    /// Computes the states of one text after the first `layers` layers, before the final norm,
    /// `(len, hidden)`. Appends the keys to `keys`, which must be empty.
    fn read(&self, ids: &[u32], layers: usize, keys: &mut dyn AnyKeys) -> Result<Tensor>;

    /// Computes the hidden states after the final norm of sequences that continue their caches,
    /// `(batch, seq, hidden)`.
    fn extend(
        &self,
        embeds: &Tensor,
        sequences: Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        caches: Vec<&mut dyn AnyKeys>,
    ) -> Result<Tensor>;

    /// Computes the scores of the next token of each sequence, `(sequences, vocab)`. `ids` contains
    /// the tokens that are not in the caches yet.
    fn next_logits(
        &self,
        ids: &[u32],
        sequences: Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        caches: Vec<&mut dyn AnyKeys>,
    ) -> Result<Tensor>;

    /// The most likely next tokens of sequences with one token each, chosen on the device. `None`
    /// if the device does not choose tokens of this model; the caches are then unchanged.
    fn next_ids(
        &self,
        ids: &[u32],
        sequences: &Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        caches: Vec<&mut dyn AnyKeys>,
    ) -> Result<Option<Vec<u32>>>;

    /// Rows of `x: (rows, width)`, zero for the index [`u32::MAX`]; differentiable.
    fn rows(self: Arc<Self>, x: &Tensor, index: &[u32]) -> Result<Tensor>;

    /// Computes the scores `(rows, vocab)` f32 of hidden states `(rows, hidden)`; differentiable.
    fn logits(self: Arc<Self>, x: &Tensor) -> Result<Tensor>;
}

impl<B: Backend> Network<B> {
    /// Returns the keys of a prefix; `None` without a prefix and for a prefix without tokens.
    fn prefix_of(&self, prefix: Option<&Arc<dyn AnyKeys>>) -> Result<Option<Arc<B::Keys>>> {
        let Some(keys) = prefix else { return Ok(None) };
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(keys) as _;
        match any.downcast::<B::Keys>() {
            Ok(keys) if self.fits(&keys) => Ok(Some(keys).filter(|keys| !keys.is_empty())),
            _ => Err(Error::Input("the prefix belongs to another model".into())),
        }
    }

    fn fits(&self, keys: &B::Keys) -> bool {
        self.backend.fits(keys, self.layers(), heads(&self.config))
    }

    fn cache_of<'a>(&self, keys: &'a mut dyn AnyKeys) -> Result<&'a mut B::Keys> {
        let any: &mut dyn Any = keys;
        match any.downcast_mut::<B::Keys>() {
            Some(keys) if self.fits(keys) => Ok(keys),
            _ => Err(Error::Input("the cache belongs to another model".into())),
        }
    }

    fn caches_of<'a>(&self, caches: Vec<&'a mut dyn AnyKeys>) -> Result<Vec<&'a mut B::Keys>> {
        caches.into_iter().map(|keys| self.cache_of(keys)).collect()
    }
}

impl<B: Backend> AnyNetwork for Network<B> {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn device(&self) -> &Device {
        self.backend.device()
    }

    fn simd_level(&self) -> Option<SimdLevel> {
        self.backend.simd_level()
    }

    fn resident_bytes(&self) -> usize {
        self.resident_bytes()
    }

    fn free_memory(&self) -> Result<Option<usize>> {
        Ok(self.backend.free_memory()?)
    }

    fn embedding_rms(&self) -> f32 {
        self.embedding_rms()
    }

    fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.embed(ids)
    }

    fn keys(&self, differentiable: bool) -> Box<dyn AnyKeys> {
        Box::new(self.backend.keys(self.layers(), heads(&self.config), differentiable))
    }

    fn hidden_states(
        self: Arc<Self>,
        embeds: &Tensor,
        sequences: Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        keep: Keep,
        at: Option<&[u32]>,
    ) -> Result<Tensor> {
        let (_, seq, _) = embeds.dims3()?;
        let prefix = self.prefix_of(prefix)?;
        let (backend, sequences) = (&self.backend, Arc::new(sequences));
        let (output, tape, selected) = backend.run(None, || -> Result<_> {
            let select = |at| Selected::new(at, sequences.tokens(), backend.device());
            let selected = at.map(select).transpose()?;
            let x = backend.pack(&embeds.detach(), &sequences)?;
            let own = prefix.as_deref();
            let (x, tape) = self.forward(x, &sequences, own, keep, selected.as_ref())?;
            let output = match selected {
                None => backend.unpack(&x, &sequences, seq)?,
                Some(_) => x,
            };
            Ok((output, tape, selected))
        })?;
        if keep == Keep::Nothing {
            return Ok(output);
        }
        let network = Arc::clone(&self);
        Ok(embeds.apply_op1(Stack { network, output, tape, sequences, prefix, selected })?)
    }

    fn read(&self, ids: &[u32], layers: usize, keys: &mut dyn AnyKeys) -> Result<Tensor> {
        let keys = self.cache_of(keys)?;
        let sequences = Arc::new(Sequences::new(&[ids.len()], |_| 0));
        self.backend.run(None, || {
            Network::extend(self, self.embed(ids)?, &sequences, None, layers, vec![keys])
        })
    }

    fn extend(
        &self,
        embeds: &Tensor,
        sequences: Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        caches: Vec<&mut dyn AnyKeys>,
    ) -> Result<Tensor> {
        let (_, seq, _) = embeds.dims3()?;
        let (prefix, caches) = (self.prefix_of(prefix)?, self.caches_of(caches)?);
        let (backend, sequences) = (&self.backend, Arc::new(sequences));
        backend.run(Some(sequences.tokens()), || {
            let x = backend.pack(&embeds.detach(), &sequences)?;
            let x = Network::extend(self, x, &sequences, prefix.as_deref(), self.layers(), caches)?;
            Ok(backend.unpack(&self.norm(&x)?, &sequences, seq)?)
        })
    }

    fn next_logits(
        &self,
        ids: &[u32],
        sequences: Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        caches: Vec<&mut dyn AnyKeys>,
    ) -> Result<Tensor> {
        let (prefix, caches) = (self.prefix_of(prefix)?, self.caches_of(caches)?);
        let sequences = Arc::new(sequences);
        self.backend.run(Some(ids.len()), || {
            let x = self.embed(ids)?;
            let x = Network::extend(self, x, &sequences, prefix.as_deref(), self.layers(), caches)?;
            let x = if sequences.len() == ids.len() {
                x
            } else {
                let last = sequences.starts()[1..].iter().map(|&end| end as u32 - 1);
                let last = Tensor::from_iter(last, x.device())?;
                x.index_select(&last, 0)?
            };
            self.scores(&x)
        })
    }

    fn next_ids(
        &self,
        ids: &[u32],
        sequences: &Sequences,
        prefix: Option<&Arc<dyn AnyKeys>>,
        caches: Vec<&mut dyn AnyKeys>,
    ) -> Result<Option<Vec<u32>>> {
        let (prefix, caches) = (self.prefix_of(prefix)?, self.caches_of(caches)?);
        self.backend.run(Some(ids.len()), || self.decode(ids, sequences, prefix.as_deref(), caches))
    }

    fn rows(self: Arc<Self>, x: &Tensor, index: &[u32]) -> Result<Tensor> {
        let output = self.backend.run(None, || self.backend.rows(&x.detach(), index))?;
        let (network, index) = (Arc::clone(&self), index.to_vec());
        Ok(x.apply_op1(Rows { network, output, index })?)
    }

    fn logits(self: Arc<Self>, x: &Tensor) -> Result<Tensor> {
        self.backend.run(None, || {
            let output = Network::logits(&self, &x.detach())?;
            Ok(x.apply_op1(Logits { network: Arc::clone(&self), output })?)
        })
    }
}
