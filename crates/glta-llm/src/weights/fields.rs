//! Bit fields of packed words as f32, without conversions.
//!
//! A field is left where it lies in its word, under an exponent that makes its
//! lowest bit worth one: `2^(23 - bit) + q`, from which `2^(23 - bit) + zero` is
//! subtracted without rounding. Only fields above the mantissa are shifted.
#![allow(unsafe_op_in_unsafe_fn)]

use super::matrix::{Packed, Zeros};
use crate::kernel::PANEL;
use crate::simd::Simd;

/// Vectors of a panel at most; a loop over `PANEL / S::LANES` of them keeps to
/// those that exist.
pub(super) const VECTORS: usize = 8;

const MANTISSA: u32 = 23;
/// Fields of two bits that fit the mantissa: no width has more.
const POSITIONS: usize = 11;

/// Inputs of one output that lie together in whole words.
pub(super) const fn unit_inputs(bits: u32) -> usize {
    if bits == 3 { 32 } else { 32 / bits as usize }
}

/// Words of [`unit_inputs`].
pub(super) const fn unit_words(bits: u32) -> usize {
    if bits == 3 { 3 } else { 1 }
}

/// Fields of a word that are used in place. Those of three bits, which straddle
/// words, are all brought to the lowest bits.
const fn in_place(bits: u32) -> u32 {
    if bits == 3 { 1 } else { MANTISSA / bits }
}

impl Packed {
    /// Zero points of a group's 32 outputs, where they differ (`!SAME`).
    ///
    /// # Safety
    /// The processor runs `S`.
    #[inline(always)]
    pub(super) unsafe fn zeros_of<S: Simd, const SAME: bool>(
        &self,
        panel: usize,
        group: usize,
    ) -> [S::F; VECTORS] {
        let mut out = [S::splat(0.0); VECTORS];
        if let (false, Zeros::Each(zeros)) = (SAME, &self.zeros) {
            let zeros = &zeros[(panel * self.n_groups + group) * PANEL..][..PANEL];
            for (v, out) in out.iter_mut().enumerate().take(PANEL / S::LANES) {
                *out = S::load_u8(zeros[v * S::LANES..].as_ptr());
            }
        }
        out
    }
}

/// Reads fields less their zero points.
#[derive(Clone, Copy)]
pub(super) struct Lift<S: Simd, const BITS: u32> {
    /// What is subtracted at every place of a field.
    base: [S::F; POSITIONS],
}

impl<S: Simd, const BITS: u32> Lift<S, BITS> {
    /// For the fields of `p`.
    ///
    /// # Safety
    /// The processor runs `S`.
    #[inline(always)]
    pub(super) unsafe fn new(p: &Packed) -> Self {
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

    /// Field `i` of the unit whose words lie at `w`, less the weight's common
    /// zero point (`SAME`) or `zeros`.
    ///
    /// # Safety
    /// `w` valid for the words of a unit, `i < unit_inputs(BITS)`.
    #[inline(always)]
    pub(super) unsafe fn field<const SAME: bool>(
        &self,
        w: *const u32,
        i: usize,
        zeros: S::F,
    ) -> S::F {
        let mask = (1 << BITS) - 1;
        let bit = i as u32 * BITS;
        let (lifted, place) = if BITS == 3 {
            let (word, offset) = ((bit / 32) as usize, bit % 32);
            let low = S::shr(S::load_u32(w.add(word * PANEL)), offset);
            // Of a field that does not straddle, nothing of the next word
            // reaches the lowest three bits.
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

/// Exponent bits of `2^(23 - bit)`, whose mantissa counts in steps of `2^-bit`.
const fn exponent(bit: u32) -> u32 {
    (127 + MANTISSA - bit) << MANTISSA
}
