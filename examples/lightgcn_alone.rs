//! LightGCN alone: train, evaluate, embed a new user.
//!
//! ```text
//! cargo run --release --example lightgcn_alone
//! ```

#![allow(clippy::print_stdout)]

use glta::data::{Dataset, ShopConfig, Split, SplitConfig};
use glta::graph::{LightGcn, LightGcnConfig, fold_in_user};
use glta::metrics::{EvaluationConfig, Metric, evaluate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Dataset::shop(&ShopConfig { users: 200, items: 100, ..ShopConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig::default())?;

    let config = LightGcnConfig { epochs: 100, learning_rate: 0.02, ..LightGcnConfig::default() };
    let trained = LightGcn::new(config)?.train(&split.train, Some(&split.valid))?;
    println!("best of {} epochs: {:?}", trained.history.len(), trained.best_validation());

    let nodes = &trained.embeddings;
    let masked = [&split.train, &split.valid];
    let report = evaluate(&nodes.scorer(), &split.test, &masked, &EvaluationConfig::default())?;
    println!("test N@10 {:.4}", report.get(Metric::Ndcg, 10).unwrap_or_default());

    // A new user with two items, without training.
    let user = fold_in_user(nodes.items.view(), &split.train.item_degrees(), &[3, 5]);
    let score = |item: usize| nodes.items.row(item).iter().zip(&user).map(|(a, b)| a * b).sum();
    let scores: Vec<f32> = (0..nodes.items.nrows()).map(score).collect();
    let best = (0..scores.len())
        .filter(|i| ![3, 5].contains(i))
        .max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    if let Some(item) = best {
        println!("for a user with items 3 and 5: {}", shop.items()[item].title);
    }
    Ok(())
}
