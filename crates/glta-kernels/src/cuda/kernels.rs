//! The CUDA source files and their kernels.

use crate::error::{Error, Result};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Elementwise,
    Attention,
    /// Attention on the tensor cores.
    AttentionMma,
    /// Products with weights of this width, and dequantised weights.
    Quantized(Bits),
    /// Products on the tensor cores.
    QuantizedMma(Bits),
}

impl Source {
    /// The files that every model needs.
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

/// The units that multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Units {
    /// The f32 units.
    Ordinary,
    /// The tensor cores, for 16-bit types and rows of whole 16 bytes.
    TensorCores,
}

/// Tiled kernels of attention; one block per tile and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    Forward,
    /// The gradient of the queries, or of the keys and values.
    Queries,
    Keys,
}

/// A kernel, generic over the dtype of activations.
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
    /// Sums of rows, in f32.
    IndexAdd,
    /// The most likely token of each text, in f32.
    NextTokens,
    /// For heads of up to this many columns.
    Attention(Pass, Units, usize),
    AttentionDelta,
    AttentionDecode,
    AppendKeys,
    Dequantise(Bits),
    /// On the f32 units, for at most this number of rows; 16-bit activations have one row.
    Product(Bits, usize),
    /// On the tensor cores, for at most this number of tiles of eight rows.
    ProductMma(Bits, usize),
    /// The same for one tile, of rows after RMSNorm.
    ProductNormed(Bits),
}

/// Head sizes for which kernels exist.
pub(super) const COLUMNS: [usize; 2] = [64, 128];
/// Numbers of rows of a product on the f32 units, and of tiles of [`TILE_ROWS`] on the matrix
/// units, for which kernels exist.
pub(super) const ROWS: [usize; 5] = [1, 2, 4, 8, 16];
pub(super) const TILES: [usize; 4] = [1, 2, 4, 8];
pub(super) const TILE_ROWS: usize = 8;

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
