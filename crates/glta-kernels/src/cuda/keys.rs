//! Keys and values of consecutive tokens of one sequence on the device.

use std::sync::Arc;

use candle_core::Tensor;

use super::device::Cuda;
use super::launch::unwritten;
use crate::backend;
use crate::error::{Error, Result};
use crate::heads::Heads;

/// Number of rows by which a cache grows at least.
const UNIT: usize = 32;

/// Shape of the keys: number of layers, and their heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyShape {
    layers: usize,
    heads: usize,
    dim: usize,
}

impl KeyShape {
    fn new(layers: usize, heads: Heads) -> Self {
        Self { layers, heads: heads.keys, dim: heads.dim }
    }

    /// Whether the layer exists.
    pub(super) fn has(self, layer: usize, heads: Heads) -> bool {
        layer < self.layers && self == Self::new(self.layers, heads)
    }
}

/// Rows of keys and values, `(layers, capacity, 2 * heads * dim)`. A clone shares the memory until
/// either of them is written.
#[derive(Clone, Debug)]
pub struct Keys {
    cuda: Cuda,
    shape: KeyShape,
    len: usize,
    rows: Option<Arc<Tensor>>,
}

impl Keys {
    pub(super) fn new(cuda: &Cuda, layers: usize, heads: Heads) -> Self {
        let shape = KeyShape::new(layers, heads);
        Self { cuda: cuda.clone(), shape, len: 0, rows: None }
    }

    pub(super) fn rows(&self) -> Option<&Tensor> {
        self.rows.as_deref()
    }

    pub(super) fn capacity(&self) -> usize {
        self.rows().and_then(|rows| rows.dim(1).ok()).unwrap_or(0)
    }

    pub(super) fn shape(&self) -> KeyShape {
        self.shape
    }

    /// Whether the keys belong to this kind of device and this number and shape of layers.
    pub(super) fn fits(&self, cuda: &Cuda, layers: usize, heads: Heads) -> bool {
        self.shape == KeyShape::new(layers, heads)
            && self.cuda.dtype == cuda.dtype
            && self.cuda.device.same_device(&cuda.device)
    }

    /// Returns an error if the keys do not match the layer of a pass.
    pub(super) fn expect(&self, cuda: &Cuda, layer: usize, heads: Heads) -> Result<()> {
        if layer < self.shape.layers && self.fits(cuda, self.shape.layers, heads) {
            return Ok(());
        }
        Err(Error::Input(format!("the keys have no layer {layer} of {heads:?} on this device")))
    }

    /// Reserves room for `tokens` more, which the caller writes in every layer.
    pub(super) fn grow(&mut self, tokens: usize) -> Result<()> {
        let len = self.len + tokens;
        // Doubling makes the cost of growing token by token linear.
        let room = if len > self.capacity() { len.max(2 * self.capacity()) } else { len };
        backend::Keys::reserve(self, room)?;
        self.len = len;
        Ok(())
    }

    /// Rows of one layer, `(capacity, width)`.
    pub(super) fn layer(&self, layer: usize) -> Result<Option<Tensor>> {
        Ok(self.rows().map(|rows| rows.get(layer)).transpose()?)
    }
}

impl backend::Keys for Keys {
    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        // The remaining values are overwritten before they are read.
        self.len = self.len.min(len);
    }

    /// Moves the keys to memory that no clone shares.
    fn reserve(&mut self, tokens: usize) -> Result<()> {
        let own = self.rows.as_mut().is_some_and(|rows| Arc::get_mut(rows).is_some());
        if own && tokens <= self.capacity() {
            return Ok(());
        }
        let capacity = tokens.max(self.len).next_multiple_of(UNIT);
        let KeyShape { layers, heads, dim } = self.shape;
        let shape = (layers, capacity, 2 * heads * dim);
        let grown = unwritten(shape, self.cuda.dtype, &self.cuda.device)?;
        if let Some(rows) = self.rows().filter(|_| self.len > 0) {
            grown.slice_set(&rows.narrow(1, 0, self.len)?.contiguous()?, 1, 0)?;
        }
        self.rows = Some(Arc::new(grown));
        Ok(())
    }
}
