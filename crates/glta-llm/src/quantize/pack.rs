//! Packs weights and zero points into 32-bit words, in GPTQ format v1.

/// Packs fields into a little-endian bit stream of 32-bit words.
pub(super) fn pack_fields(fields: &[u8], bits: u32) -> Vec<u32> {
    let mut words = vec![0u32; (fields.len() * bits as usize).div_ceil(32)];
    for (j, &field) in fields.iter().enumerate() {
        let bit = j * bits as usize;
        let value = u64::from(field) << (bit % 32);
        words[bit / 32] |= value as u32;
        if value >> 32 != 0 {
            words[bit / 32 + 1] |= (value >> 32) as u32;
        }
    }
    words
}

/// Packs zero points in format v1. This inverts `unpack_zeros`.
pub(super) fn pack_zeros(zeros: &[u8], bits: u32) -> Vec<u32> {
    if bits == 3 {
        let fields: Vec<u8> = zeros.iter().map(|z| z.wrapping_sub(1) & 7).collect();
        return pack_fields(&fields, bits);
    }
    let one_each: u32 = match bits {
        2 => 0x5555_5555,
        4 => 0x1111_1111,
        _ => 0x0101_0101,
    };
    pack_fields(zeros, bits).into_iter().map(|w| w.wrapping_sub(one_each)).collect()
}

#[cfg(test)]
mod tests {
    use glta_kernels::{Arena, GptqTensors, Matrix, ScalesRef};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn zeros_survive_packing(bits in prop::sample::select(vec![2u32, 3, 4, 8]), raw in prop::collection::vec(any::<u8>(), 64)) {
            let top = ((1u32 << bits) - 1) as u8;
            let zeros: Vec<u8> = raw.iter().map(|z| z & top).collect();
            let (n, k) = (64, 32);
            // The weights are `(0 - zero) * 1`.
            let tensors = GptqTensors {
                bits,
                n,
                k,
                n_groups: 1,
                qweight: &vec![0; k * bits as usize / 32 * n],
                qzeros: &pack_zeros(&zeros, bits),
                v1: true,
                scales: ScalesRef::F32(&[1.0; 64]),
                g_idx: &[0; 32],
            };
            let weight = Matrix::quantized(&Arena::default(), &tensors).unwrap();
            let weight = weight.to_row_major();
            let read: Vec<u8> = weight.chunks(k).map(|row| -row[0] as u8).collect();
            prop_assert_eq!(read, zeros);
        }
    }
}
