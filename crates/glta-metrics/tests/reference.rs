//! Compares with pytrec_eval and RecBole; `make_reference.py` computes the reference values.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use glta_data::Interactions;
use glta_metrics::{
    EvaluationConfig, Metric, Report, Scorer, ScorerError, evaluate, evaluate_rankings, top_k,
};
use ndarray::{Array2, ArrayViewMut2};
use serde_json::Value;

#[path = "support/real_data.rs"]
mod real_data;

use real_data::real_data;

struct Table(Array2<f32>);

impl Scorer for Table {
    fn n_items(&self) -> usize {
        self.0.ncols()
    }

    fn score(&self, users: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.rows_mut()) {
            row.assign(&self.0.row(user as usize));
        }
        Ok(())
    }
}

fn matrix(rows: &Value, n_items: usize) -> Interactions {
    let rows = rows.as_array().unwrap();
    let pairs = rows.iter().enumerate().flat_map(|(u, items)| {
        let items = items.as_array().unwrap();
        items.iter().map(move |i| (u as u32, i.as_u64().unwrap() as u32))
    });
    Interactions::from_pairs(rows.len(), n_items, pairs).unwrap()
}

/// Parses a name such as `N@10` to `("N", 10)`.
fn metric_and_k(name: &str) -> (Metric, usize) {
    let (short, k) = name.split_once('@').unwrap();
    let metric = Metric::ALL.into_iter().find(|m| m.short_name() == short);
    (metric.unwrap(), k.parse().unwrap())
}

#[test]
fn equal_to_pytrec_eval_and_recbole() {
    let fixture: Value = serde_json::from_str(include_str!("reference.json")).unwrap();
    for case in ["full", "short"] {
        let case = &fixture[case];
        let scores: Vec<&str> =
            case["scores"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
        let n_items = scores[0].len();
        let levels = scores.iter().flat_map(|row| row.bytes().map(|b| f32::from(b - b'0')));
        let scorer =
            Table(Array2::from_shape_vec((scores.len(), n_items), levels.collect()).unwrap());
        let truth = matrix(&case["truth"], n_items);
        let masked = matrix(&case["masked"], n_items);
        let config = EvaluationConfig { ks: vec![10, 3, 5], ..EvaluationConfig::default() };
        let report = evaluate(&scorer, &truth, &[&masked], &config).unwrap();
        let users: Vec<u64> = report.users().iter().map(|&u| u64::from(u)).collect();
        assert_eq!(serde_json::to_value(users).unwrap(), case["users"]);
        let mut compared = 0;
        for peer in ["pytrec_eval", "recbole"] {
            for (name, expected) in case[peer].as_object().unwrap() {
                let (metric, k) = metric_and_k(name);
                let ours = report.per_user(metric, k).unwrap();
                let expected = expected.as_array().unwrap();
                assert_eq!(ours.len(), expected.len());
                for (user, (a, b)) in ours.iter().zip(expected).enumerate() {
                    let b = b.as_f64().unwrap();
                    assert!((a - b).abs() < 1e-6, "{peer} {name} row {user}: {a} {b}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 36 * 30, "{compared}");

        check_lists(&report, &case["lists"], &masked.item_degrees());

        // Measure the same rankings, given as lists.
        let ranked = top_k(&scorer, report.users(), &[&masked], 10).unwrap();
        let given: Vec<(u32, Vec<u32>)> = report
            .users()
            .iter()
            .zip(ranked)
            .map(|(&u, row)| (u, row.iter().map(|r| r.item).collect()))
            .collect();
        assert_eq!(evaluate_rankings(&given, &truth, &[3, 5, 10]).unwrap(), report);
    }
}

fn check_lists(report: &Report, expected: &Value, degrees: &[u32]) {
    for (name, expected) in expected.as_object().unwrap() {
        let (measure, k) = name.split_once('@').unwrap();
        let k = k.parse().unwrap();
        let ours = match measure {
            "coverage" => report.coverage(k),
            "gini" => report.gini(k),
            _ => report.average_popularity(k, degrees).unwrap(),
        };
        let expected = expected.as_f64().unwrap();
        assert!((ours.unwrap() - expected).abs() < 1e-6, "{name}: {ours:?} {expected}");
    }
}

/// Compares a popularity ranking on real data with the means that `make_reference.py ML100K_DIR`
/// prints.
#[test]
#[ignore = "needs GLTA_DATA"]
fn popularity_on_ml_100k() {
    let lines = std::fs::read_to_string(real_data("data/ml-100k/u.data")).unwrap();
    let (mut users, mut items) = (Vec::new(), Vec::new());
    let (mut train, mut test) = (Vec::new(), Vec::new());
    let number = |ids: &mut Vec<u32>, raw: u32| {
        let at = ids.iter().position(|&id| id == raw).unwrap_or_else(|| {
            ids.push(raw);
            ids.len() - 1
        });
        at as u32
    };
    for line in lines.lines() {
        let mut fields = line.split('\t').map(|f| f.parse::<u32>().unwrap());
        let (user, item) = (fields.next().unwrap(), fields.next().unwrap());
        let pair = (number(&mut users, user), number(&mut items, item));
        let part = if (7 * user + 13 * item) % 5 == 0 { &mut test } else { &mut train };
        part.push(pair);
    }
    let train = Interactions::from_pairs(users.len(), items.len(), train).unwrap();
    let test = Interactions::from_pairs(users.len(), items.len(), test).unwrap();
    let degrees = train.item_degrees();
    let row: Vec<f32> = degrees.iter().map(|&d| d as f32).collect();
    let scores = Array2::from_shape_fn((users.len(), items.len()), |(_, i)| row[i]);
    let report = evaluate(&Table(scores), &test, &[&train], &EvaluationConfig::default()).unwrap();
    for (name, expected) in [
        ("P@5", 0.217622081),
        ("P@10", 0.192462845),
        ("P@20", 0.154299363),
        ("R@5", 0.072429721),
        ("R@10", 0.124342378),
        ("R@20", 0.177752192),
        ("N@5", 0.227786458),
        ("N@10", 0.221354),
        ("N@20", 0.216240901),
        ("H@5", 0.626326964),
        ("H@10", 0.809978769),
        ("H@20", 0.863057325),
        ("MRR@5", 0.377565464),
        ("MRR@10", 0.402497641),
        ("MRR@20", 0.406363144),
        ("MAP@5", 0.145627506),
        ("MAP@10", 0.114135517),
        ("MAP@20", 0.095920791),
        ("MAPcut@5", 0.041196666),
        ("MAPcut@10", 0.054637764),
        ("MAPcut@20", 0.067416685),
    ] {
        let (metric, k) = metric_and_k(name);
        let ours = report.get(metric, k).unwrap();
        assert!((ours - expected).abs() < 1e-6, "{name}: {ours} {expected}");
    }
    let lists = serde_json::json!({
        "coverage@5": 0.015457788, "gini@5": 0.993994865, "popularity@5": 389.686199575,
        "coverage@20": 0.045184304, "gini@20": 0.980196208, "popularity@20": 312.119055202,
    });
    check_lists(&report, &lists, &degrees);
}
