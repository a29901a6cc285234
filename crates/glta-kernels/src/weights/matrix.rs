use std::sync::Arc;

use half::{bf16, f16};

use super::buffer::Buffer;
use crate::error::{Error, Result};
use crate::panel::PANEL;

/// Maximum number of stored rows in a segment.
pub(crate) const MAX_SEGMENT: usize = 256;

/// A frozen weight `W: (n, k)` (outputs by inputs) in panels of outputs.
///
/// Panel `p` contains the outputs `32 p..32 p + 32` for all inputs, input by input, so products
/// with one row or many rows read the panel once and in order.
///
/// ```
/// use glta_kernels::{Arena, Matrix};
///
/// let matrix = Matrix::dense_f32(&Arena::default(), 2, 3, &[1., 2., 3., 4., 5., 6.])?;
/// let mut row = [0.0; 3];
/// matrix.dense_row(1, &mut row);
/// assert_eq!((matrix.outputs(), row), (2, [4., 5., 6.]));
/// # Ok::<(), glta_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct Matrix {
    /// Number of outputs.
    pub(crate) n: usize,
    /// Number of inputs.
    pub(crate) k: usize,
    /// Number of stored inputs: the groups one after the other, each padded to a multiple of 32 if
    /// the matrix is quantised.
    pub(crate) k_stored: usize,
    /// Index of the input in each stored row, [`Self::PADDING`] for a padding row. `None` if row
    /// `i` contains input `i` for all `i`.
    pub(crate) gather: Option<Arc<Vec<u32>>>,
    /// Ranges of stored rows that share a scale, at most [`MAX_SEGMENT`] rows each.
    pub(crate) segments: Vec<Segment>,
    pub(crate) storage: Storage,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// Index of the quantisation group.
    pub(crate) group: usize,
}

#[derive(Debug)]
pub(crate) enum Storage {
    Packed(Packed),
    Dense(DenseData),
}

/// Dense values, `[panel][k][32]`.
#[derive(Debug)]
pub(crate) enum DenseData {
    F32(Buffer<f32>),
    F16(Buffer<u16>),
    Bf16(Buffer<u16>),
}

/// Quantised values with their scales and zero points.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bits: u32,
    pub(crate) n_groups: usize,
    /// Number of words per panel.
    pub(crate) panel_words: usize,
    /// The packed values, `[panel][k_stored / 32][bits][32]`. 32 inputs of one output are `bits`
    /// words, a little-endian bit stream as in the file.
    pub(crate) words: Buffer<u32>,
    /// The scales, `[panel][group][32]`.
    pub(crate) scales: Scales,
    pub(crate) zeros: Zeros,
}

/// Zero points without the offset of version 1 of the format.
#[derive(Debug)]
pub(crate) enum Zeros {
    /// A single zero point, for symmetric quantisation.
    Same(u8),
    /// One zero point per group and output, `[panel][group][32]`.
    Each(Buffer<u8>),
}

#[derive(Debug)]
pub(crate) enum Scales {
    F16(Buffer<u16>),
    F32(Buffer<f32>),
}

/// A weight `(outputs, inputs)` and its bias `(outputs,)`.
pub type Weight = (Arc<Matrix>, Option<Vec<f32>>);

impl Matrix {
    /// Sentinel in `gather` that marks a padding row, which contains no input.
    pub(crate) const PADDING: u32 = u32::MAX;

    pub(crate) fn n_panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Returns whether the values are quantised.
    pub fn is_packed(&self) -> bool {
        matches!(self.storage, Storage::Packed(_))
    }

    /// Returns the size of the weight in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let values = match &self.storage {
            Storage::Dense(DenseData::F32(v)) => v.len() * 4,
            Storage::Dense(DenseData::F16(v) | DenseData::Bf16(v)) => v.len() * 2,
            Storage::Packed(p) => {
                let scales = match &p.scales {
                    Scales::F16(s) => s.len() * 2,
                    Scales::F32(s) => s.len() * 4,
                };
                let zeros = match &p.zeros {
                    Zeros::Same(_) => 0,
                    Zeros::Each(zeros) => zeros.len(),
                };
                p.words.len() * 4 + scales + zeros
            }
        };
        values + self.gather.as_ref().map_or(0, |g| g.len() * 4)
    }

    /// Returns an error for a quantised matrix, which cannot be an embedding table.
    pub(crate) fn expect_dense(&self) -> Result<()> {
        if self.is_packed() {
            return Err(Error::Input("an embedding table cannot be quantised".into()));
        }
        Ok(())
    }

    /// Returns the number of outputs.
    pub fn outputs(&self) -> usize {
        self.n
    }

    /// Returns the number of inputs.
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// Copies the weight row of output `n` (a token's embedding) to `out: (k,)`.
    ///
    /// # Panics
    /// Panics if the matrix is quantised or the output does not exist.
    pub fn dense_row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n, "there is no output {n} of {}", self.n);
        let at = |k: usize| (n / PANEL * self.k + k) * PANEL + n % PANEL;
        let Storage::Dense(data) = &self.storage else {
            unreachable!("embedding tables are dense");
        };
        for (k, out) in out.iter_mut().enumerate() {
            *out = match data {
                DenseData::F32(v) => v[at(k)],
                DenseData::F16(v) => f16::from_bits(v[at(k)]).to_f32(),
                DenseData::Bf16(v) => bf16::from_bits(v[at(k)]).to_f32(),
            };
        }
    }
}

/// Divides `start..start + len` into segments of one group and appends them.
pub(crate) fn push_segments(
    segments: &mut Vec<Segment>,
    mut start: usize,
    mut len: usize,
    group: usize,
) {
    while len > 0 {
        let part = len.min(MAX_SEGMENT);
        segments.push(Segment { start, len: part, group });
        start += part;
        len -= part;
    }
}

impl Matrix {
    /// Returns whether every dense value is finite.
    pub fn is_finite(&self) -> bool {
        use rayon::prelude::*;
        // The exponent bits of NaN and infinity are all ones.
        match &self.storage {
            Storage::Packed(_) => true,
            Storage::Dense(DenseData::F32(v)) => v.par_iter().all(|v| v.is_finite()),
            Storage::Dense(DenseData::F16(v)) => v.par_iter().all(|v| v & 0x7c00 != 0x7c00),
            Storage::Dense(DenseData::Bf16(v)) => v.par_iter().all(|v| v & 0x7f80 != 0x7f80),
        }
    }
}
