//! Decodes bit fields of packed words to pairs of bf16, which represent `q - zero` exactly.
//!
//! Two fields that are half a word apart have the same position in the two halves. One shift moves
//! both to the lowest bits, and a table maps both to bf16.
#![allow(unsafe_op_in_unsafe_fn)]

use super::fields::{Fields, VECTORS};
use super::matrix::{Matrix, Packed, Storage, Zeros};
use crate::panel::PANEL;
use crate::simd::Simd;

impl Matrix {
    /// Returns the distance between the two inputs of a bf16 pair, for weights of 2 or 4 bits.
    /// Returns `None` for other widths: fields of 3 bits straddle words, and fields of 8 bits need
    /// too large a table.
    pub(crate) fn pair_distance(&self) -> Option<usize> {
        match &self.storage {
            Storage::Packed(Packed { bits: bits @ (2 | 4), .. }) => Some(16 / *bits as usize),
            _ => None,
        }
    }
}

/// A decoder of fields of 2 or 4 bits to pairs. `SAME` states whether the weight has a single zero
/// point.
pub(super) struct Pairs<const BITS: u32, const SAME: bool> {
    /// The bf16 value for each combination of five bits: a field and ignored bits (`SAME`), or a
    /// field minus its zero point plus [`OFFSET`].
    table: [u16; 32],
}

/// Offset that makes `q - zero` of up to four bits positive.
const OFFSET: u32 = 16;

impl<S: Simd, const BITS: u32, const SAME: bool> Fields<S> for Pairs<BITS, SAME> {
    const BITS: u32 = BITS;
    const PAIRS: bool = true;
    type Zeros = S::I;

    #[inline(always)]
    unsafe fn new(p: &Packed) -> Self {
        let (mask, zero) = match p.zeros {
            Zeros::Same(zero) => (mask(BITS), i32::from(zero)),
            Zeros::Each(_) => (31, OFFSET as i32),
        };
        // The upper half of the f32 represents such small integers exactly. Rounding instructions
        // would cost as much as decoding a few hundred weights.
        let bf16 = |value: i32| ((value as f32).to_bits() >> 16) as u16;
        Self { table: std::array::from_fn(|i| bf16((i as u32 & mask) as i32 - zero)) }
    }

    #[inline(always)]
    unsafe fn zeros(p: &Packed, panel: usize, group: usize) -> [S::I; VECTORS] {
        let mut offsets = [0u32; PANEL];
        if let (false, Some(zeros)) = (SAME, p.each_zero(panel, group)) {
            for (offset, &zero) in offsets.iter_mut().zip(zeros) {
                *offset = (OFFSET - u32::from(zero)) * 0x1_0001;
            }
        }
        let mut out = [S::load_u32(offsets.as_ptr()); VECTORS];
        for (v, out) in out.iter_mut().enumerate().take(PANEL / S::LANES) {
            *out = S::load_u32(offsets[v * S::LANES..].as_ptr());
        }
        out
    }

    #[inline(always)]
    unsafe fn lane(&self, w: *const u32, i: usize, zeros: S::I) -> S::F {
        let word = S::shr(S::load_u32(w), i as u32 * BITS);
        let index = if SAME { word } else { S::masked_add(word, mask(BITS) * 0x1_0001, zeros) };
        S::look_up(self.table.as_ptr(), index)
    }
}

const fn mask(bits: u32) -> u32 {
    (1 << bits) - 1
}
