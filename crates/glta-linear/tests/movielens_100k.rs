//! The known strength of simple systems on MovieLens-100K: 80/20 per user, a
//! tenth of the training part as validation. An independent PyTorch and NumPy
//! implementation found NDCG@10 .221 for popularity, .439 for EASE and .425 for
//! a tuned LightGCN on another split of the same kind.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use glta_data::Interactions;
use glta_graph::{LightGcn, LightGcnConfig};
use glta_linear::{Ease, EaseConfig, Popularity};
use glta_metrics::{EvaluationConfig, Metric, Scorer, evaluate};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

struct Data {
    train: Interactions,
    valid: Interactions,
    test: Interactions,
}

impl Data {
    fn load() -> Option<Self> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml-100k/u.data");
        let Ok(text) = std::fs::read_to_string(&path) else {
            let _ = writeln!(std::io::stderr(), "skipped: {} is not there", path.display());
            return None;
        };
        let mut items: Vec<Vec<u32>> = vec![Vec::new(); 943];
        for line in text.lines() {
            let mut fields = line.split('\t').map(|f| f.parse::<u32>().unwrap() - 1);
            items[fields.next().unwrap() as usize].push(fields.next().unwrap());
        }
        let mut rng = ChaCha8Rng::seed_from_u64(2024);
        let mut parts: [Vec<(u32, u32)>; 3] = Default::default();
        for (user, items) in items.iter_mut().enumerate() {
            items.sort_unstable();
            items.shuffle(&mut rng);
            let n_test = (items.len() as f64 * 0.2).round() as usize;
            let n_valid = ((items.len() - n_test) as f64 * 0.1).round() as usize;
            for (k, &item) in items.iter().enumerate() {
                let part = if k < n_test { 2 } else { usize::from(k < n_test + n_valid) };
                parts[part].push((user as u32, item));
            }
        }
        let [train, valid, test] =
            parts.map(|pairs| Interactions::from_pairs(943, 1682, pairs).unwrap());
        Some(Self { train, valid, test })
    }

    fn ndcg(&self, scorer: &dyn Scorer) -> f64 {
        let masked = [&self.train, &self.valid];
        let report = evaluate(scorer, &self.test, &masked, &EvaluationConfig::default()).unwrap();
        report.get(Metric::Ndcg, 10).unwrap()
    }
}

#[test]
fn popularity() {
    let Some(data) = Data::load() else { return };
    let ndcg = data.ndcg(&Popularity::fit(&data.train));
    println!("popularity N@10 {ndcg:.4}");
    assert!((ndcg - 0.221).abs() < 0.012);
}

#[test]
fn ease() {
    let Some(data) = Data::load() else { return };
    let config = EaseConfig { l2: 400.0, ..Default::default() };
    let ndcg = data.ndcg(&Ease::fit(&data.train, &config).unwrap());
    println!("EASE N@10 {ndcg:.4}");
    assert!((ndcg - 0.439).abs() < 0.012);
}

#[test]
fn light_gcn() {
    let Some(data) = Data::load() else { return };
    let config = LightGcnConfig {
        learning_rate: 0.01,
        l2: 1e-3,
        batch_size: 8192,
        epochs: 250,
        patience: 5,
        ..Default::default()
    };
    let trained = LightGcn::new(config)
        .unwrap()
        .train(&data.train, Some(&data.valid), &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let ndcg = data.ndcg(&trained.embeddings.scorer());
    println!("LightGCN N@10 {ndcg:.4}, epoch {}", trained.best_epoch);
    assert!((ndcg - 0.425).abs() < 0.015);
}
