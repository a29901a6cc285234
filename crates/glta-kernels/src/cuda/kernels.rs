//! The kernels.

use crate::error::{Error, Result};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Elementwise,
    Attention,
    /// On the matrix units.
    AttentionMma,
    /// For weights of so many bits.
    Quantized(Bits),
}

impl Source {
    /// What every model needs.
    pub(super) const COMMON: [Self; 3] = [Self::Elementwise, Self::Attention, Self::AttentionMma];
}

/// Width of a packed weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bits {
    Two,
    Three,
    Four,
    Eight,
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Units {
    /// In f32.
    Ordinary,
    /// Two bytes at a time, in rows of whole 16 bytes.
    Matrix,
}

/// Kernels of attention that work in tiles, a block for each tile and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    Forward,
    /// The gradient of queries, and that of keys and values.
    Queries,
    Keys,
}

/// A kernel, for activations of some dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    RmsNorm,
    RmsNormBackward,
    Rope,
    GatherColumns,
    GatherRows,
    Swiglu,
    SwigluBackward,
    Add,
    /// For heads of up to so many columns.
    Attention(Pass, Units, usize),
    AttentionDelta,
    AttentionDecode,
    AppendKeys,
    Dequantise(Bits),
    /// For up to so many rows.
    Product(Bits, usize),
}

/// Columns of heads, and rows of products, that kernels are made for.
pub(super) const COLUMNS: [usize; 2] = [64, 128];
pub(super) const ROWS: [usize; 5] = [1, 2, 4, 8, 16];

impl Bits {
    pub(super) const ALL: [Self; 4] = [Self::Two, Self::Three, Self::Four, Self::Eight];

    pub(super) fn new(bits: u32) -> Result<Self> {
        Self::ALL.into_iter().find(|b| b.count() == bits).ok_or_else(|| Error::Unsupported {
            what: format!("weights of {bits} bits on a CUDA device"),
            supported: "2, 3, 4 and 8 bits",
        })
    }

    pub(super) fn count(self) -> u32 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}
