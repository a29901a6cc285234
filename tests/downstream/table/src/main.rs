//! Adds its own system and data set to the table: `table OUT_DIR`.
use std::collections::HashMap;

use glta_data::{Dataset, Interaction, Interactions, Item};
use glta_eval::{BoxError, Density, Experiment, ExperimentConfig, Fitted, Preset, Seed, System};
use glta_metrics::{Scorer, ScorerError};
use ndarray::{ArrayViewMut2, Axis};

/// Recommends the items of the kind that a user bought most.
struct SameKind {
    kinds: Vec<String>,
    train: Interactions,
}

impl Scorer for SameKind {
    fn n_items(&self) -> usize {
        self.kinds.len()
    }

    fn score(&self, users: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            let mut bought: HashMap<&str, f32> = HashMap::new();
            for &item in self.train.items(user) {
                *bought.entry(&self.kinds[item as usize]).or_default() += 1.0;
            }
            for (score, kind) in row.iter_mut().zip(&self.kinds) {
                *score = bought.get(kind.as_str()).copied().unwrap_or(0.0);
            }
        }
        Ok(())
    }
}

struct SameKindSystem;

impl System for SameKindSystem {
    fn name(&self) -> &str {
        "Same kind"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> Result<Fitted, BoxError> {
        let kinds = seed.dataset().items().iter().map(|item| item.title.clone()).collect();
        Ok(Fitted::new(SameKind { kinds, train: seed.split().train.clone() }))
    }
}

fn main() -> Result<(), BoxError> {
    let out = std::env::args().nth(1).ok_or("usage: table OUT_DIR")?;
    let items: Vec<Item> =
        (0..30).map(|n| Item::titled(format!("p{n}"), format!("kind {}", n % 3))).collect();
    let users: Vec<String> = (0..60).map(|n| format!("ann {n}")).collect();
    let pairs = (0..600).map(|n| (n % 60, (7 * n + n / 60 * 3) % 30));
    let same = pairs.filter(|(u, i)| u % 3 == i % 3);
    let bought = same.map(|(u, i)| Interaction::new(&users[u], &items[i].raw_id));
    let dataset = Dataset::from_interactions("own", bought, items.clone())?;
    let config = ExperimentConfig::new(Preset::Full, Density::Sparse);
    println!("{}", Experiment::new(&dataset, out, config).system(SameKindSystem).run()?.table());
    Ok(())
}
