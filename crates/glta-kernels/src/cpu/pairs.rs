//! Rounds f32 to bf16, two to an element ([`Element::Pair`](super::Element)).

use crate::simd::{Simd, dispatch};

/// Returns the bits of the nearest bf16, ties to even.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    // For a NaN, rounding would carry from the mantissa into the sign.
    let nan = bits & 0x7fff_ffff > 0x7f80_0000;
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if nan { bits | 1 << 22 } else { rounded }) >> 16
}

#[inline(always)]
fn runs<const DISTANCE: usize>(from: &[f32], to: &mut [f32]) {
    let runs = from.chunks_exact(2 * DISTANCE);
    for (to, from) in to.chunks_exact_mut(DISTANCE).zip(runs) {
        for i in 0..DISTANCE {
            to[i] = f32::from_bits(bf16(from[i]) | bf16(from[i + DISTANCE]) << 16);
        }
    }
}

// The compiler vectorises these plain loops.
#[inline(always)]
unsafe fn round_generic<S: Simd>(from: &[f32], distance: usize, to: &mut [f32]) {
    match distance {
        1 => runs::<1>(from, to),
        4 => runs::<4>(from, to),
        8 => runs::<8>(from, to),
        _ => unreachable!("no weight pairs inputs {distance} apart"),
    }
}

dispatch! {
    /// Rounds `from` to half as many elements: pairs of values at the given distance. The length of
    /// `from` must be a multiple of two distances.
    pub(crate) unsafe fn round_pairs_at(from: &[f32], distance: usize, to: &mut [f32]) = round_generic
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::SimdLevel;

    #[test]
    fn rounding_equals_the_half_crate() {
        // Test every upper half with lower halves at, below and above the midpoint. These include
        // infinities, NaNs and values that round to infinity.
        let lower = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1234, 0xc000];
        let numbers: Vec<f32> = (0..=0xffffu32)
            .flat_map(|upper| lower.map(|lower| f32::from_bits(upper << 16 | lower)))
            .collect();
        for level in SimdLevel::supported() {
            for distance in [1, 4, 8] {
                let mut pairs = vec![0.0; numbers.len() / 2];
                // SAFETY: the processor supports `level`.
                unsafe { round_pairs_at(level, &numbers, distance, &mut pairs) };
                for (i, pair) in pairs.iter().enumerate() {
                    let first = i / distance * 2 * distance + i % distance;
                    for (half, from) in [(0, first), (16, first + distance)] {
                        let got = half::bf16::from_bits((pair.to_bits() >> half) as u16);
                        let expected = half::bf16::from_f32(numbers[from]);
                        assert_eq!(got.to_bits(), expected.to_bits(), "{}", numbers[from]);
                    }
                }
            }
        }
    }
}
