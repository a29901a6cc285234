//! The order of packed words on a device: that of the fragments of the tensor cores
//! (`kernels/packed.cuh`).

use rayon::prelude::*;

use super::kernels::Bits;
use crate::panel::PANEL;

/// Outputs and inputs of a lane.
const COLUMNS: usize = 4;
const FIELDS: usize = 8;

/// Reorders words from `[panel][k / 32][bits][32]` to fragments. The size stays the same.
pub(super) fn fragments(words: &[u32], bits: Bits) -> Vec<u32> {
    let square = bits.count() as usize * PANEL;
    let mut out = vec![0; words.len()];
    out.par_chunks_exact_mut(square)
        .zip(words.par_chunks_exact(square))
        .with_min_len(64)
        .for_each(|(to, from)| reorder(from, bits, to));
    out
}

/// Reorders a square of 32 inputs and 32 outputs.
fn reorder(from: &[u32], bits: Bits, to: &mut [u32]) {
    let width = bits.count() as usize;
    let mask = (1u64 << width) - 1;
    for output in 0..PANEL {
        for eight in 0..PANEL / FIELDS {
            let lane = output / COLUMNS * COLUMNS + eight;
            // The fields of eight inputs are in at most three words.
            let first = eight * FIELDS * width;
            let word = |i: usize| from.get((first / 32 + i) * PANEL + output).copied();
            let stream = [0, 1, 2].map(|i| u128::from(word(i).unwrap_or(0)) << (32 * i));
            let mut stream = ((stream[0] | stream[1] | stream[2]) >> (first % 32)) as u64;
            for j in 0..FIELDS {
                let field = (stream & mask) as u32;
                stream >>= width;
                let pair = output % COLUMNS * FIELDS / 2 + j / 2;
                put(to, bits, lane, pair, j % 2, field);
            }
        }
    }
}

/// Writes a field of a lane's pair, in the lower or upper half of a word.
fn put(to: &mut [u32], bits: Bits, lane: usize, pair: usize, half: usize, field: u32) {
    let width = bits.count() as usize;
    let per_half = 16 / width;
    if pair >= width * per_half {
        for word in 0..width {
            to[place(bits, lane, word)] |= (field >> word & 1) << (16 * half + 15);
        }
        return;
    }
    let shift = 16 * half + pair % per_half * width;
    to[place(bits, lane, pair / per_half)] |= field << shift;
}

/// Position of a lane's word in its square. A lane reads up to four adjacent words at a time.
fn place(bits: Bits, lane: usize, word: usize) -> usize {
    match bits {
        Bits::Two => 2 * lane + word,
        Bits::Three => PANEL * word + lane,
        Bits::Four | Bits::Eight => word / 4 * 4 * PANEL + 4 * lane + word % 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_a_place() {
        for bits in Bits::ALL {
            let square = bits.count() as usize * PANEL;
            let ones = vec![u32::MAX; 3 * square];
            assert_eq!(fragments(&ones, bits), ones);
            for at in 0..square {
                let mut words = vec![0; square];
                words[at] = 1 << (at % 32);
                let moved = fragments(&words, bits);
                assert_eq!(moved.iter().map(|w| w.count_ones()).sum::<u32>(), 1, "{bits:?}");
            }
        }
    }

    #[test]
    fn eight_inputs_of_an_output_are_in_one_lane() {
        // Inputs 8 to 15 of output 6, of 4 bits: their word on the host is word 1.
        let mut words = vec![0; 4 * PANEL];
        words[PANEL + 6] = 0x8765_4321;
        let moved = fragments(&words, Bits::Four);
        // Lane 4 + 1, column 2; even inputs are in the lower half.
        assert_eq!(moved[4 * 5 + 2], 0x8642_7531);
        assert_eq!(moved.iter().filter(|&&w| w != 0).count(), 1);
    }
}
