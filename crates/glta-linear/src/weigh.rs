//! Chooses the weights of neighbours and popularity on validation data.

use glta_core::{pick, stream};
use glta_data::Interactions;
use rayon::prelude::*;

use crate::touched::{Parts, Sums};
use crate::{LinearModel, Result};

/// Length of the measured lists.
const LENGTH: usize = 10;
/// Maximum number of users in a measurement.
const USERS: usize = 20_000;
/// Number of users per block. Values are summed within a block, then over blocks in order.
const BLOCK: usize = 64;
/// Number of blocks between two progress reports.
const WAVE: usize = 8;
/// Number of items after which the search for a rank checks whether it can stop.
const PIECE: usize = 128;

/// Users with their training and validation items.
pub(crate) struct Measured<'a> {
    train: &'a Interactions,
    valid: &'a Interactions,
    users: Vec<u32>,
}

impl<'a> Measured<'a> {
    /// Selects the users with validation items: at most 20,000, sampled with `seed`.
    pub(crate) fn new(train: &'a Interactions, valid: &'a Interactions, seed: u64) -> Self {
        let users: Vec<u32> =
            (0..valid.n_users() as u32).filter(|&user| !valid.items(user).is_empty()).collect();
        let users = pick(&users, USERS, &mut stream(seed, "validation users", &[]));
        Self { train, valid, users }
    }

    /// Returns N@10 of `model` for each pair of weights of neighbours and popularity. `advance` is
    /// called with the number of finished users and the total number.
    pub(crate) fn ndcg(
        &self,
        model: &LinearModel,
        weights: &[(f32, f32)],
        advance: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let of_block = |users: &[u32]| {
            let mut sums = vec![0.0; weights.len()];
            let (mut sums_of, mut scores) = (Sums::default(), Vec::new());
            for &user in users {
                let own = self.train.items(user);
                let skip = |item: u32| own.binary_search(&item).is_ok();
                let mut parts = sums_of.parts(model, own, LENGTH, skip, |parts| parts);
                parts.retain(|parts| !skip(parts.item));
                let wanted = self.valid.items(user);
                let ideal: f64 = (0..wanted.len().min(LENGTH)).map(gain).sum();
                for (sum, &weights) in sums.iter_mut().zip(weights) {
                    *sum += found(&parts, wanted, weights, &mut scores) / ideal;
                }
            }
            sums
        };
        let mut blocks: Vec<Vec<f64>> = Vec::new();
        for (nth, wave) in self.users.chunks(WAVE * BLOCK).enumerate() {
            blocks.par_extend(wave.par_chunks(BLOCK).map(of_block));
            advance(nth * WAVE * BLOCK + wave.len(), self.users.len())?;
        }
        let mean = |at: usize| {
            blocks.iter().map(|sums| sums[at]).sum::<f64>() / self.users.len().max(1) as f64
        };
        Ok((0..weights.len()).map(mean).collect())
    }
}

fn gain(rank: usize) -> f64 {
    1.0 / (rank as f64 + 2.0).log2()
}

/// Returns the discounted gain of the wanted items that are among the first ten.
fn found(parts: &[Parts], wanted: &[u32], weights: (f32, f32), scores: &mut Vec<f32>) -> f64 {
    scores.clear();
    scores.extend(parts.iter().map(|parts| parts.score(weights)));
    let mut sum = 0.0;
    for (hit, &own) in parts.iter().zip(&*scores) {
        if wanted.binary_search(&hit.item).is_err() {
            continue;
        }
        let mut rank = 0;
        for (scores, parts) in scores.chunks(PIECE).zip(parts.chunks(PIECE)) {
            let above = |(&other, parts): (&f32, &Parts)| {
                other > own || (other == own && parts.item < hit.item)
            };
            rank += scores.iter().zip(parts).filter(|&pair| above(pair)).count();
            // Most items are not among the first ten, which shows early.
            if rank >= LENGTH {
                break;
            }
        }
        if rank < LENGTH {
            sum += gain(rank);
        }
    }
    sum
}
