//! MovieLens-100K, split 80/20 per user, with a tenth of the training part as validation data.

use glta_data::Interactions;
use glta_metrics::{EvaluationConfig, Metric, Scorer, evaluate};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

#[path = "real_data.rs"]
mod real_data;

use real_data::real_data;

pub(crate) struct Data {
    pub(crate) train: Interactions,
    pub(crate) valid: Interactions,
    test: Interactions,
}

impl Data {
    /// Reads `data/ml-100k/u.data` in the folder that `GLTA_DATA` names.
    pub(crate) fn load() -> Self {
        let text = std::fs::read_to_string(real_data("data/ml-100k/u.data")).unwrap();
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
        Self { train, valid, test }
    }

    pub(crate) fn ndcg(&self, scorer: &dyn Scorer) -> f64 {
        let masked = [&self.train, &self.valid];
        let report = evaluate(scorer, &self.test, &masked, &EvaluationConfig::default()).unwrap();
        report.get(Metric::Ndcg, 10).unwrap()
    }
}
