//! The linear item model alone: interactions and text vectors in, scores out. No language model
//! and no tensor library is compiled for it.
//!
//! ```text
//! cargo run --release --example linear_model
//! ```

#![allow(clippy::print_stdout)]

use glta_data::{Dataset, ShopConfig, Split, SplitConfig};
use glta_linear::{LinearConfig, LinearModel, WhitenConfig, whiten};
use glta_metrics::{EvaluationConfig, Metric, evaluate};
use ndarray::Array2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Dataset::shop(&ShopConfig { users: 200, items: 100, ..ShopConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig::default())?;

    // Any vectors of the items' texts will do; here the letters that a title begins with.
    let mut vectors = Array2::<f32>::zeros((shop.n_items(), 26));
    for (item, mut row) in shop.items().iter().zip(vectors.rows_mut()) {
        for letter in item.title.to_lowercase().bytes().filter(u8::is_ascii_lowercase) {
            row[usize::from(letter - b'a')] += 1.0;
        }
    }
    let vectors = whiten(vectors.view(), &WhitenConfig::default())?;

    let (train, valid) = (&split.train, Some(&split.valid));
    let config = LinearConfig::default();
    let model = LinearModel::fit(train, valid, Some(vectors.view()), &config, 1)?;
    println!("chosen on validation data: {:?}", model.report());

    let masked = [&split.train, &split.valid];
    let report = evaluate(&model, &split.test, &masked, &EvaluationConfig::default())?;
    println!("test N@10 {:.4}", report.get(Metric::Ndcg, 10).unwrap_or_default());

    // Anyone who has items 3 and 5.
    let scores = model.score_items(&[3, 5]);
    println!("{:?}", &scores[..6]);
    Ok(())
}
