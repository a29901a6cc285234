//! EASE in its local form on Gowalla, for comparison with the dense form.
//! `benches/peers/dense_ease.py` solves the dense form in the space of users, because the matrix
//! over all 40,981 items does not fit into memory.
//!
//! ```text
//! cargo bench -p glta-linear --bench gowalla -- gowalla/train.txt gowalla/test.txt
//! ```
//!
//! `--rows NUMBER`, the last argument, is the number of co-occurring items that are kept per item.
//! With one file, a tenth of its pairs is the test part; both programs select it by the same rule.

#![allow(clippy::print_stdout)]

#[path = "support/pairs.rs"]
mod pairs;

use std::time::Instant;

use glta_data::Interactions;
use glta_linear::{Ease, EaseConfig, Form};
use glta_metrics::{EvaluationConfig, Metric, evaluate};
use pairs::pairs;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A tenth of all pairs, by SplitMix64's mixing function: ids that are close, such as those of
/// items that were visited one after the other, are held out independently.
fn held_out((user, item): (u32, u32)) -> bool {
    let mut z = (u64::from(user) << 32 | u64::from(item)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) % 10 == 0
}

fn main() -> Result<(), Error> {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let rows = match files.iter().position(|argument| argument == "--rows") {
        Some(at) => files.drain(at..).nth(1).ok_or("--rows NUMBER")?.parse()?,
        None => EaseConfig::default().rows,
    };
    files.retain(|argument| !argument.starts_with("--"));
    let Some(train) = files.first() else {
        println!("give train.txt, and test.txt for the published split");
        return Ok(());
    };
    let (train, test) = match files.get(1) {
        Some(test) => (pairs(train)?, pairs(test)?),
        None => pairs(train)?.into_iter().partition(|&pair| !held_out(pair)),
    };
    let all = || train.iter().chain(&test);
    let users = all().map(|p| p.0).max().map_or(0, |u| u as usize + 1);
    let items = all().map(|p| p.1).max().map_or(0, |i| i as usize + 1);
    let train = Interactions::from_pairs(users, items, train)?;
    let test = Interactions::from_pairs(users, items, test)?;
    println!("{users} users, {items} items, {} + {} pairs", train.len(), test.len());
    let config = EvaluationConfig { ks: vec![10, 20], ..EvaluationConfig::default() };
    for sources in [64, 128] {
        for l2 in [30.0, 60.0, 100.0] {
            let start = Instant::now();
            let form = Form::Local { sources, rank: 0 };
            let ease = Ease::fit(&train, &EaseConfig { l2, form, rows, ..EaseConfig::default() })?;
            let seconds = start.elapsed().as_secs_f64();
            let report = evaluate(&ease, &test, &[&train], &config)?;
            let value = |metric, k| report.get(metric, k).unwrap_or_default();
            println!(
                "sources {sources:3}  l2 {l2:3}  N@10 {:.4}  N@20 {:.4}  R@20 {:.4}  {seconds:.1} s",
                value(Metric::Ndcg, 10),
                value(Metric::Ndcg, 20),
                value(Metric::Recall, 20)
            );
        }
    }
    Ok(())
}
