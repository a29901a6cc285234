//! Decodes bit fields of packed words to lanes: to f32 without conversion instructions, or to pairs
//! of bf16 ([`super::pairs`]).
//!
//! For f32, a field keeps its position in the word, and gets an exponent for which its lowest bit
//! has the value one: `2^(23 - bit) + q`. Subtracting `2^(23 - bit) + zero` is exact. Only fields
//! above the mantissa are shifted.
#![allow(unsafe_op_in_unsafe_fn)]

use super::matrix::{Packed, Zeros};
use crate::panel::PANEL;
use crate::simd::Simd;

/// Maximum number of vectors in a panel. Loops run over `PANEL / S::LANES` of them.
pub(super) const VECTORS: usize = 8;

const MANTISSA: u32 = 23;
/// Number of two-bit fields in a mantissa. With wider fields, the number is smaller.
const POSITIONS: usize = 11;

/// Returns the number of inputs of one output that fill whole words.
pub(super) const fn unit_inputs(bits: u32) -> usize {
    if bits == 3 { 32 } else { 32 / bits as usize }
}

/// Returns the number of words that contain the [`unit_inputs`] inputs of an output.
pub(super) const fn unit_words(bits: u32) -> usize {
    if bits == 3 { 3 } else { 1 }
}

/// Returns the number of fields of a word that are decoded in place, without a shift. Three-bit
/// fields straddle words and are all shifted to the lowest bits.
const fn in_place(bits: u32) -> u32 {
    if bits == 3 { 1 } else { MANTISSA / bits }
}

/// A decoder that returns fields minus their zero points.
pub(super) trait Fields<S: Simd> {
    /// Width of a field in bits.
    const BITS: u32;
    /// Whether a lane contains two fields in bf16 instead of one in f32.
    const PAIRS: bool;
    /// Number of lanes of one output that fill whole words.
    const LANES: usize = unit_inputs(Self::BITS) / (1 + Self::PAIRS as usize);
    /// Zero points of a vector of outputs.
    type Zeros: Copy;

    /// Prepares to decode the fields of `p`.
    ///
    /// # Safety
    /// The processor must support `S`. The same holds for the other methods.
    unsafe fn new(p: &Packed) -> Self;

    /// Returns the zero points of a group's 32 outputs.
    ///
    /// # Safety
    /// The processor must support `S`.
    unsafe fn zeros(p: &Packed, panel: usize, group: usize) -> [Self::Zeros; VECTORS];

    /// Decodes lane `i` of the unit whose words start at `w`.
    ///
    /// # Safety
    /// The processor must support `S`, `w` must be valid for the words of a unit, and `i < LANES`.
    unsafe fn lane(&self, w: *const u32, i: usize, zeros: Self::Zeros) -> S::F;
}

impl Packed {
    /// Returns the zero points of a group's 32 outputs; `None` if the weight has a single one.
    pub(super) fn each_zero(&self, panel: usize, group: usize) -> Option<&[u8]> {
        match &self.zeros {
            Zeros::Same(_) => None,
            Zeros::Each(zeros) => Some(&zeros[(panel * self.n_groups + group) * PANEL..][..PANEL]),
        }
    }
}

/// A decoder of fields to f32. `SAME` states whether the weight has a single zero point.
pub(super) struct Lift<S: Simd, const BITS: u32, const SAME: bool> {
    /// Value to subtract from a field, for each position of the field in a word.
    base: [S::F; POSITIONS],
}

impl<S: Simd, const BITS: u32, const SAME: bool> Fields<S> for Lift<S, BITS, SAME> {
    const BITS: u32 = BITS;
    const PAIRS: bool = false;
    type Zeros = S::F;

    #[inline(always)]
    unsafe fn new(p: &Packed) -> Self {
        let same = match p.zeros {
            Zeros::Same(zero) => f32::from(zero),
            Zeros::Each(_) => 0.0,
        };
        let mut base = [S::splat(0.0); POSITIONS];
        for (i, base) in base.iter_mut().enumerate().take(in_place(BITS) as usize) {
            *base = S::splat(f32::from_bits(exponent(i as u32 * BITS)) + same);
        }
        Self { base }
    }

    #[inline(always)]
    unsafe fn zeros(p: &Packed, panel: usize, group: usize) -> [S::F; VECTORS] {
        let mut out = [S::splat(0.0); VECTORS];
        if let (false, Some(zeros)) = (SAME, p.each_zero(panel, group)) {
            for (v, out) in out.iter_mut().enumerate().take(PANEL / S::LANES) {
                *out = S::load_u8(zeros[v * S::LANES..].as_ptr());
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn lane(&self, w: *const u32, i: usize, zeros: S::F) -> S::F {
        let mask = (1 << BITS) - 1;
        let bit = i as u32 * BITS;
        let (lifted, place) = if BITS == 3 {
            let (word, offset) = ((bit / 32) as usize, bit % 32);
            let low = S::shr(S::load_u32(w.add(word * PANEL)), offset);
            // For a field that does not straddle, no bit of the next word reaches the lowest three
            // bits.
            let next = S::load_u32(w.add((word + 1).min(2) * PANEL));
            let value = S::or(low, S::shl(next, 32 - offset));
            (S::assemble(value, mask, exponent(0)), 0)
        } else {
            let place = i as u32 % in_place(BITS);
            let at = place * BITS;
            let value = S::load_u32(w);
            let value = if bit == at { value } else { S::shr(value, bit - at) };
            (S::assemble(value, mask << at, exponent(at)), place as usize)
        };
        let q = S::sub(lifted, self.base[place]);
        if SAME { q } else { S::sub(q, zeros) }
    }
}

/// Returns the exponent bits of `2^(23 - bit)`, whose mantissa has steps of `2^-bit`.
const fn exponent(bit: u32) -> u32 {
    (127 + MANTISSA - bit) << MANTISSA
}
