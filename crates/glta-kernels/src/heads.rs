/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key-value heads, a divisor of `queries`.
    pub keys: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Heads {
    /// Width of the fused query, key, value projection.
    pub fn stride(self) -> usize {
        (self.queries + 2 * self.keys) * self.dim
    }

    /// Column of the first key in the fused projection.
    pub fn key_at(self) -> usize {
        self.queries * self.dim
    }

    /// Column of the first value in the fused projection.
    pub fn value_at(self) -> usize {
        (self.queries + self.keys) * self.dim
    }

    /// Query heads per key-value head.
    pub(crate) fn group(self) -> usize {
        self.queries / self.keys
    }

    /// Factor of the attention scores, `1 / sqrt(dim)`.
    pub(crate) fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}
