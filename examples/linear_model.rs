//! The linear model alone, from interactions and text vectors to scores. It compiles no language
//! model and no tensor library.
//!
//! ```text
//! cargo run --release --example linear_model
//! ```

#![allow(clippy::print_stdout)]

use glta_core::{Silent, TextEncoder};
use glta_data::{Dataset, ShopConfig, Split, SplitConfig};
use glta_linear::{
    LinearConfig, LinearModel, TextVectors, TfIdf, TfIdfConfig, WhitenConfig, whiten,
};
use glta_metrics::{EvaluationConfig, Metric, evaluate};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let shop = Dataset::shop(&ShopConfig { users: 200, items: 100, ..ShopConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig::default())?;

    let texts: Vec<String> = shop.items().iter().map(|item| item.description.clone()).collect();
    let words = TfIdf::fit(&texts, &TfIdfConfig::default())?;
    let vectors = words.encode(&texts, &mut Silent)?;
    let vectors = TextVectors::new(whiten(vectors.view(), &WhitenConfig::default())?)?;

    let (train, valid) = (&split.train, Some(&split.valid));
    let config = LinearConfig::default();
    let model = LinearModel::fit(train, valid, Some(&vectors), &config, 1)?;
    println!("settings chosen on validation data: {:?}", model.report());

    let masked = [&split.train, &split.valid];
    let report = evaluate(&model, &split.test, &masked, &EvaluationConfig::default())?;
    println!("test N@10 {:.4}", report.get(Metric::Ndcg, 10).unwrap_or_default());

    // Any user with the items 3 and 5.
    let scores = model.score_items(&[3, 5]);
    println!("{:?}", &scores[..6]);
    Ok(())
}
