use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Returns the random generator for one purpose and one position in the work, such as `stream(seed,
/// "user epoch", &[epoch])`. Work that derives its generators in this way needs no saved generator
/// state: a resumed run draws the same numbers as an uninterrupted one.
///
/// ```
/// use glta_core::stream;
/// use rand_chacha::rand_core::RngCore;
///
/// let mut first = stream(7, "shuffle", &[1]);
/// let (mut same, mut next) = (stream(7, "shuffle", &[1]), stream(7, "shuffle", &[2]));
/// let draw = first.next_u64();
/// assert_eq!(draw, same.next_u64());
/// assert_ne!(draw, next.next_u64());
/// ```
pub fn stream(seed: u64, purpose: &str, path: &[u64]) -> ChaCha8Rng {
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

/// Samples `n` values of `from` without replacement, in the order of `from`. Returns all values if
/// there are fewer than `n`.
///
/// ```
/// use glta_core::{pick, stream};
///
/// let picked = pick(&[2, 4, 6, 8], 2, &mut stream(7, "example", &[]));
/// assert_eq!(picked.len(), 2);
/// assert!(picked[0] < picked[1]);
/// ```
pub fn pick(from: &[u32], n: usize, rng: &mut impl Rng) -> Vec<u32> {
    let n = n.min(from.len());
    let mut picked: Vec<u32> =
        rand::seq::index::sample(rng, from.len(), n).into_iter().map(|i| from[i]).collect();
    picked.sort_unstable();
    picked
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::RngCore;

    use super::{pick, stream};

    #[test]
    fn every_place_has_its_own_stream() {
        let first = |seed, purpose: &str, path: &[u64]| stream(seed, purpose, path).next_u64();
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

    #[test]
    fn picks_are_distinct_and_ascending() {
        let from = [9, 4, 7, 1];
        for n in 0..6 {
            let picked = pick(&from, n, &mut stream(n as u64, "test", &[]));
            assert_eq!(picked.len(), n.min(4));
            assert!(picked.is_sorted_by(|a, b| a < b));
            assert!(picked.iter().all(|item| from.contains(item)));
        }
    }
}
