//! Metrics of the lists of another recommender.
use glta_metrics::{Interactions, Metric, evaluate_rankings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let test = Interactions::from_pairs(2, 6, [(0, 1), (0, 4), (1, 2)])?;
    let lists = [(0, vec![4, 3, 1]), (1, vec![5, 0, 3])];
    let report = evaluate_rankings(&lists, &test, &[3])?;
    println!("P@3 {:?}, N@3 {:?}", report.get(Metric::Precision, 3), report.get(Metric::Ndcg, 3));
    assert_eq!(report.get(Metric::Precision, 3), Some(1.0 / 3.0));
    Ok(())
}
