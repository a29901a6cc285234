//! The factor that turns scores into the logits of a calibrated softmax.

use glta_core::{pick, stream};
use glta_data::Interactions;

use crate::progress::Reporter;
use crate::{LinearModel, LinearStage, Result};

/// Users whose hidden items set the temperature, and scores of theirs that are kept. At least
/// 32 users are taken.
const CALIBRATED: usize = 512;
const SCORES: usize = 1 << 26;

/// The factor under which half of some users' items, scored without those users, have
/// the largest likelihood given the other half. `model` must have temperature 1.
pub(crate) fn temperature(
    model: &LinearModel,
    train: &Interactions,
    seed: u64,
    reporter: &mut Reporter<'_>,
) -> Result<f32> {
    // The purpose is part of the seed: another text gives another temperature.
    let mut random = stream(seed, "kernel temperature", &[]);
    let able: Vec<u32> =
        (0..train.n_users() as u32).filter(|&user| train.items(user).len() > 1).collect();
    let mut cases = Vec::new();
    let users = CALIBRATED.min((SCORES / train.n_items().max(1)).max(32));
    let picked = pick(&able, users, &mut random);
    let all = picked.len() as u64;
    for (done, user) in (0..).zip(picked) {
        reporter.stage(LinearStage::Temperature, done, all)?;
        let items = train.items(user);
        let hidden = pick(items, items.len() / 2, &mut random);
        let context: Vec<u32> =
            items.iter().copied().filter(|i| hidden.binary_search(i).is_err()).collect();
        let mut scores = model.score_without(user, &context)?;
        context.iter().for_each(|&i| scores[i as usize] = f32::NEG_INFINITY);
        cases.push((scores, hidden));
    }
    let loss = |log: f64| -> f64 {
        let factor = log.exp();
        cases
            .iter()
            .map(|(scores, hidden)| {
                let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = scores.iter().map(|&s| (factor * f64::from(s - top)).exp()).sum();
                let hits: f64 =
                    hidden.iter().map(|&i| factor * f64::from(scores[i as usize] - top)).sum();
                sum.ln() - hits / hidden.len() as f64
            })
            .sum()
    };
    // Golden section: the loss is convex in the factor.
    let (mut low, mut high) = (0.01f64.ln(), 10_000f64.ln());
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    while high - low > 0.01 && !cases.is_empty() {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if loss(a) < loss(b) { high = b } else { low = a }
    }
    Ok(if cases.is_empty() { 1.0 } else { (0.5 * (low + high)).exp() as f32 })
}
