//! Checks known results of simple systems on MovieLens-100K. An independent PyTorch and NumPy
//! implementation has NDCG@10 .221 for popularity and .439 for EASE on another split of the same
//! kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use glta_linear::{Ease, EaseConfig, Popularity};

#[path = "support/ml_100k.rs"]
mod ml_100k;

use ml_100k::Data;

#[test]
#[ignore = "needs GLTA_DATA"]
fn popularity() {
    let data = Data::load();
    let ndcg = data.ndcg(&Popularity::fit(&data.train));
    println!("popularity N@10 {ndcg:.4}");
    assert!((ndcg - 0.221).abs() < 0.012);
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn ease() {
    let data = Data::load();
    let config = EaseConfig { l2: 400.0, ..Default::default() };
    let ndcg = data.ndcg(&Ease::fit(&data.train, &config).unwrap());
    println!("EASE N@10 {ndcg:.4}");
    assert!((ndcg - 0.439).abs() < 0.012);
}
