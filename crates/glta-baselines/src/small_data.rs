//! Small test data that all baselines share.

use glta_data::Interactions;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Returns interactions of 24 users and 15 items.
pub(crate) fn train() -> Interactions {
    let pairs = (0..24u32).flat_map(|u| (0..15u32).map(move |i| (u, i)));
    let kept = pairs.filter(|(u, i)| (u * 7 + i * i * 3 + u * i) % 4 == 0);
    Interactions::from_pairs(24, 15, kept).unwrap()
}

/// Returns random text vectors, `(rows, 9)`.
pub(crate) fn texts(rows: usize, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, 9), |_| rng.random_range(-1.0f32..1.0))
}
