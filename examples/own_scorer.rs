//! Adds your own recommender to the table: `cargo run --release --example own_scorer`

#![allow(clippy::print_stdout)]

use glta_data::{Dataset, Interactions, ShopConfig};
use glta_eval::{
    BoxError, Density, Experiment, ExperimentConfig, Fitted, Preset, Seed, System, comparison_table,
};
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};

/// Counts how often two items are bought together.
struct Together(Interactions);

impl Scorer for Together {
    fn n_items(&self) -> usize {
        self.0.n_items()
    }

    fn score(&self, users: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        let buyers = self.0.transpose();
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            row.fill(0.0);
            for &item in self.0.items(user) {
                for &other in buyers.items(item) {
                    self.0.items(other).iter().for_each(|&item| row[item as usize] += 1.0);
                }
            }
        }
        Ok(())
    }
}

struct TogetherSystem;

impl System for TogetherSystem {
    fn name(&self) -> &str {
        "Together"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> Result<Fitted, BoxError> {
        Ok(Fitted::new(Together(seed.split().train.clone())))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Dataset::shop(&ShopConfig { users: 200, items: 100, ..ShopConfig::default() })?;
    let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
    config.run.only = ["Popularity", "EASE", "Together"].map(String::from).to_vec();
    config.run.seeds = vec![1, 2];
    let folder = tempfile::tempdir()?;
    let experiment = Experiment::new(&shop, folder.path(), config).system(TogetherSystem);
    let record = experiment.run()?;
    println!("{}\n\n{}", record.table(), comparison_table(&record.comparisons("Together")?));
    Ok(())
}
