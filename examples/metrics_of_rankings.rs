//! Metrics of given rankings, and a paired test.
//!
//! ```text
//! cargo run --release --example metrics_of_rankings
//! ```

#![allow(clippy::print_stdout)]

use glta::data::Interactions;
use glta::metrics::{Metric, Paired, evaluate_rankings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Four users, six items; the held-out items of each user.
    let test = Interactions::from_pairs(4, 6, [(0, 1), (0, 4), (1, 2), (2, 0), (3, 3), (3, 5)])?;
    let one = [(0, vec![1, 2, 4]), (1, vec![2, 0, 1]), (2, vec![5, 0, 3]), (3, vec![3, 5, 0])];
    let other = [(0, vec![2, 1, 0]), (1, vec![0, 2, 1]), (2, vec![4, 5, 3]), (3, vec![5, 3, 0])];

    let one = evaluate_rankings(&one, &test, &[1, 3])?;
    let other = evaluate_rankings(&other, &test, &[1, 3])?;
    for ((name, a), (_, b)) in one.iter().zip(other.iter()) {
        println!("{name:<9} {a:.4} {b:.4}");
    }

    // Is the difference more than chance? The users are the pairs.
    let ndcg = |report: &glta::metrics::Report| {
        report.per_user(Metric::Ndcg, 3).map(<[f64]>::to_vec).unwrap_or_default()
    };
    let paired = Paired::from_values(&ndcg(&one), &ndcg(&other))?;
    println!(
        "N@3 difference {:+.4}, standard error {:.4}, p {:.3}",
        paired.mean(),
        paired.standard_error(),
        paired.t_test().p_value
    );
    Ok(())
}
