//! Fits the factor that turns scores into the logits of a calibrated softmax.

use glta_core::{pick, stream};
use glta_data::Interactions;

use crate::progress::Reporter;
use crate::{LinearModel, LinearStage, Result};

/// Maximum number of users whose hidden items determine the temperature.
const CALIBRATED: usize = 512;
/// Maximum number of kept scores, which limits the number of users. At least 32 users are used.
const SCORES: usize = 1 << 26;

/// Returns the factor that maximises the likelihood of half of some users' items given the other
/// half, with scores without these users. `model` must have temperature 1.
pub(crate) fn temperature(
    model: &LinearModel,
    train: &Interactions,
    seed: u64,
    reporter: &mut Reporter<'_>,
) -> Result<f32> {
    // The text is part of the seed, so another text would change the temperature.
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
                // Most items are unrelated to the context and have the same score.
                let (mut last, mut value) = (top, 1.0f64);
                let exponential = |&score: &f32| {
                    if score != last {
                        (last, value) = (score, (factor * f64::from(score - top)).exp());
                    }
                    value
                };
                let sum: f64 = scores.iter().map(exponential).sum();
                let hits: f64 =
                    hidden.iter().map(|&i| factor * f64::from(scores[i as usize] - top)).sum();
                sum.ln() - hits / hidden.len() as f64
            })
            .sum()
    };
    // Search by golden section, because the loss is convex in the factor.
    let (mut low, mut high) = (0.01f64.ln(), 10_000f64.ln());
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_a, mut at_b) = if cases.is_empty() { (0.0, 0.0) } else { (loss(a), loss(b)) };
    while high - low > 0.01 && !cases.is_empty() {
        // One of the two points is also a point of the next range.
        if at_a < at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - ratio * (high - low);
            at_a = loss(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + ratio * (high - low);
            at_b = loss(b);
        }
    }
    Ok(if cases.is_empty() { 1.0 } else { (0.5 * (low + high)).exp() as f32 })
}
