use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A generator for one purpose. Deriving it from where it is used (stage,
/// epoch, user …) instead of carrying one along makes a resumed run draw the
/// same numbers as an unbroken one.
pub(crate) fn rng(seed: u64, purpose: &str, path: &[u64]) -> ChaCha8Rng {
    // FNV-1a over the purpose, then SplitMix64 rounds over the path.
    let mut state = purpose
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    for &part in std::iter::once(&seed).chain(path) {
        state = state.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    ChaCha8Rng::seed_from_u64(state)
}

#[cfg(test)]
mod tests {
    use rand::RngCore;

    use super::rng;

    #[test]
    fn every_place_has_its_own_stream() {
        let first = |seed, purpose: &str, path: &[u64]| rng(seed, purpose, path).next_u64();
        assert_eq!(first(1, "a", &[2, 3]), first(1, "a", &[2, 3]));
        let all = [
            first(1, "a", &[2, 3]),
            first(1, "a", &[3, 2]),
            first(2, "a", &[2, 3]),
            first(1, "b", &[2, 3]),
            first(1, "a", &[2]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b));
        }
    }
}
