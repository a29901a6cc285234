use candle_core::Tensor;

use crate::arguments::expect_shape;
use crate::error::{Error, Result};

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Number of query heads.
    pub queries: usize,
    /// Number of key-value heads, a divisor of `queries`.
    pub keys: usize,
    /// Width of a head, in columns.
    pub dim: usize,
    /// Attention window: the number of tokens that a token attends to, including itself. `None` for
    /// all previous tokens.
    pub window: Option<usize>,
}

impl Heads {
    /// Returns the width of the fused query, key and value projection.
    pub fn stride(self) -> usize {
        (self.queries + 2 * self.keys) * self.dim
    }

    /// Returns the column of the first key in the fused projection.
    pub fn key_at(self) -> usize {
        self.queries * self.dim
    }

    /// Returns the column of the first value in the fused projection.
    pub fn value_at(self) -> usize {
        (self.queries + self.keys) * self.dim
    }

    /// Checks that the sizes are positive and fit together.
    pub(crate) fn validate(self) -> Result<()> {
        let Self { queries, keys, dim, window } = self;
        if queries > 0 && keys > 0 && queries.is_multiple_of(keys) && dim > 0 && window != Some(0) {
            return Ok(());
        }
        Err(Error::Input(format!(
            "invalid attention heads: {queries} query heads, {keys} key heads, {dim} columns, window \
             {window:?}"
        )))
    }

    /// Returns an error unless `qkv` is the fused projection of `tokens` tokens.
    pub(crate) fn expect_projection(self, qkv: &Tensor, tokens: usize) -> Result<()> {
        expect_shape("the projection before attention", qkv, tokens, self.stride())
    }

    /// Returns the number of query heads per key-value head.
    pub(crate) fn group(self) -> usize {
        self.queries / self.keys
    }

    /// Returns the window, or `usize::MAX` without one.
    pub(crate) fn window(self) -> usize {
        self.window.unwrap_or(usize::MAX)
    }

    /// Returns the factor of the attention scores, `1 / sqrt(dim)`.
    pub(crate) fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}
