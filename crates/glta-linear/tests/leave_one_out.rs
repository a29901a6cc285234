//! Compares the scores of a local model without one user, for the user's hidden items, with a fit
//! without the user.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use glta_data::Interactions;
use glta_linear::{Ease, EaseConfig, Form, TextVectors};
use ndarray::Array2;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Generates sparse data: users of 20 different tastes with a dozen items each. Texts show the
/// tastes.
fn generated(users: usize, items: usize) -> (Interactions, TextVectors) {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut pairs = Vec::new();
    for user in 0..users as u32 {
        for _ in 0..12 {
            let item = if random.random_bool(0.6) {
                20 * random.random_range(0..items as u32 / 20) + user % 20
            } else {
                random.random_range(0..items as u32)
            };
            pairs.push((user, item));
        }
    }
    let vectors = Array2::from_shape_fn((items, 20), |(item, c)| {
        random.random_range(-0.4f32..0.4) + if item % 20 == c { 1.0 } else { 0.0 }
    });
    let mut vectors = vectors;
    for mut row in vectors.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    let train = Interactions::from_pairs(users, items, pairs).unwrap();
    (train, TextVectors::new(vectors).unwrap())
}

/// Returns N@10 of the hidden items, with the context masked.
fn ndcg(mut scores: Vec<f32>, context: &[u32], hidden: &[u32]) -> f64 {
    context.iter().for_each(|&item| scores[item as usize] = f32::NEG_INFINITY);
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let found = order[..10].iter().enumerate().filter(|(_, item)| hidden.contains(item));
    let ideal: f64 = (0..hidden.len().min(10)).map(gain).sum();
    found.map(|(rank, _)| gain(rank)).sum::<f64>() / ideal
}

#[test]
fn hidden_items_rank_as_in_a_fit_without_the_user() {
    let (train, text) = generated(600, 300);
    let config = EaseConfig {
        l2: 30.0,
        form: Form::Local { sources: 16, rank: 0 },
        rows: 64,
        text_neighbours: 16,
        ..EaseConfig::default()
    };
    let fit = |train: &Interactions| Ease::fit_collective(train, &text, 10.0, &config).unwrap();
    let ease = fit(&train);
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (mut refitted, mut corrected, mut leaking) = (0.0, 0.0, 0.0);
    let users = 200;
    for user in 0..users {
        let mut items = train.items(user).to_vec();
        items.shuffle(&mut random);
        let (context, hidden) = items.split_at(items.len() / 2);
        let without = fit(&train.filter(|other, _| other != user));
        refitted += ndcg(without.score_items(context), context, hidden);
        corrected += ndcg(ease.score_without(user, context).unwrap(), context, hidden);
        leaking += ndcg(ease.score_items(context), context, hidden);
    }
    let mean = |sum: f64| sum / f64::from(users);
    let (refitted, corrected, leaking) = (mean(refitted), mean(corrected), mean(leaking));
    // On such small data the chosen sources depend on every user.
    assert!((corrected - refitted).abs() < 0.15 * refitted, "{corrected} {refitted}");
    assert!(leaking > 1.3 * refitted, "the test has no power: {leaking} {refitted}");
}
