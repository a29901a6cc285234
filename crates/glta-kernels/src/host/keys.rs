use crate::backend;
use crate::cpu::keys::KeyBlock;
use crate::error::{Error, Result};
use crate::heads::Heads;

/// Keys and values of one sequence, one block per layer.
#[derive(Clone, Debug)]
pub struct Keys {
    pub(crate) layers: Vec<KeyBlock>,
}

impl Keys {
    pub(crate) fn new(layers: usize, heads: Heads, differentiable: bool) -> Self {
        let block = KeyBlock::new(heads.keys, heads.dim, differentiable);
        Self { layers: vec![block; layers] }
    }

    /// Returns whether the keys belong to `layers` layers of the shape `heads`.
    pub(crate) fn fits(&self, layers: usize, heads: Heads) -> bool {
        self.layers.len() == layers
            && self.layers.iter().all(|block| block.is_for(heads.keys, heads.dim))
    }

    /// Returns the block of a layer, or an error if a `differentiable` block is requested and the
    /// block is not differentiable.
    pub(crate) fn block(
        &self,
        layer: usize,
        heads: Heads,
        differentiable: bool,
    ) -> Result<&KeyBlock> {
        match self.layers.get(layer) {
            Some(block) if block.is_for(heads.keys, heads.dim) => {
                if differentiable && !block.is_differentiable() {
                    return Err(Error::Input("the shared keys are not differentiable".into()));
                }
                Ok(block)
            }
            _ => Err(Error::Input(format!("the keys have no layer {layer} of {heads:?}"))),
        }
    }
}

impl backend::Keys for Keys {
    fn len(&self) -> usize {
        self.layers.first().map_or(0, KeyBlock::len)
    }

    fn truncate(&mut self, len: usize) {
        self.layers.iter_mut().for_each(|block| block.truncate(len));
    }

    fn reserve(&mut self, tokens: usize) -> Result<()> {
        self.layers.iter_mut().for_each(|block| block.reserve(tokens));
        Ok(())
    }
}
