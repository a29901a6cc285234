//! Compares the local form with the dense form and with NumPy (`make_reference.py`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use glta_data::Interactions;
use glta_linear::{
    Ease, EaseConfig, Form, LinearConfig, LinearModel, Solver, TextNeighbours, TextVectors,
};
use glta_metrics::Scorer;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    l2: f64,
    alpha: f64,
    sources: usize,
    rows: usize,
    text_neighbours: usize,
    rank: usize,
    users: usize,
    items: usize,
    pairs: Vec<(u32, u32)>,
    vectors: Vec<Vec<f32>>,
    near: Vec<Vec<u32>>,
    weights: Vec<Vec<f64>>,
    diagonal: Vec<f64>,
    full_weights: Vec<Vec<f64>>,
    full_diagonal: Vec<f64>,
    left_out: u32,
    context: Vec<u32>,
    without: Vec<(usize, f64)>,
    coarse_weights: Vec<Vec<f64>>,
    coarse_diagonal: Vec<f64>,
}

impl Reference {
    fn load() -> Self {
        serde_json::from_str(include_str!("reference.json")).unwrap()
    }

    fn train(&self) -> Interactions {
        Interactions::from_pairs(self.users, self.items, self.pairs.iter().copied()).unwrap()
    }

    fn text(&self) -> TextVectors {
        let dim = self.vectors[0].len();
        let values = self.vectors.concat();
        TextVectors::new(Array2::from_shape_vec((self.items, dim), values).unwrap()).unwrap()
    }

    fn config(&self, rank: usize, rows: usize) -> EaseConfig {
        EaseConfig {
            l2: self.l2,
            form: Form::Local { sources: self.sources, rank },
            rows,
            text_neighbours: self.text_neighbours,
            ..EaseConfig::default()
        }
    }

    fn fit(&self, rank: usize, rows: usize) -> Ease {
        let config = self.config(rank, rows);
        Ease::fit_collective(&self.train(), &self.text(), self.alpha, &config).unwrap()
    }
}

fn weights(ease: &Ease) -> Array2<f32> {
    let n = ease.n_items();
    let rows: Vec<f32> = (0..n as u32).flat_map(|item| ease.score_items(&[item])).collect();
    Array2::from_shape_vec((n, n), rows).unwrap()
}

fn close(ease: &Ease, expected: &[Vec<f64>], diagonal: &[f64], bound: f64) {
    for ((i, j), &got) in weights(ease).indexed_iter() {
        let expected = expected[i][j];
        assert!((f64::from(got) - expected).abs() < bound, "B[{i}, {j}]: {got} {expected}");
    }
    for (j, (got, expected)) in ease.diagonal().iter().zip(diagonal).enumerate() {
        assert!((got - expected).abs() < bound * expected, "P[{j}]: {got} {expected}");
    }
}

#[test]
fn columns_equal_those_of_numpy() {
    let reference = Reference::load();
    close(&reference.fit(0, reference.rows), &reference.weights, &reference.diagonal, 1e-5);
    close(&reference.fit(0, 1000), &reference.full_weights, &reference.full_diagonal, 1e-5);
}

#[test]
fn columns_with_a_low_rank_part_are_the_galerkin_solution() {
    let reference = Reference::load();
    let ease = reference.fit(reference.rank, reference.rows);
    close(&ease, &reference.coarse_weights, &reference.coarse_diagonal, 1e-5);
}

#[test]
fn text_neighbours_equal_those_of_numpy() {
    let reference = Reference::load();
    let near = TextNeighbours::find(&reference.text(), reference.text_neighbours).unwrap();
    for (item, expected) in reference.near.iter().enumerate() {
        let got: Vec<u32> = near.of(item as u32).map(|(other, _)| other).collect();
        assert_eq!(&got, expected, "of {item}");
    }
}

#[test]
fn a_users_own_items_are_solved_again_without_the_user() {
    let reference = Reference::load();
    let ease = reference.fit(0, reference.rows);
    let got = ease.score_without(reference.left_out, &reference.context).unwrap();
    let leaky = ease.score_items(&reference.context);
    let mut leak = 0.0f64;
    for &(item, expected) in &reference.without {
        let got = f64::from(got[item]);
        assert!((got - expected).abs() < 1e-5, "item {item}: {got} {expected}");
        leak = leak.max((f64::from(leaky[item]) - expected).abs());
    }
    assert!(leak > 0.01, "{leak}");
}

/// Returns interactions and texts of a generated shop with `users` and `items`.
fn generated(users: usize, items: usize, seed: u64) -> (Interactions, TextVectors) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let group = |n: usize| n % 5;
    let mut pairs = Vec::new();
    for user in 0..users {
        for item in 0..items {
            let likely = if group(user) == group(item) { 0.3 } else { 0.05 };
            if random.random_bool(likely) {
                pairs.push((user as u32, item as u32));
            }
        }
    }
    let vectors = Array2::from_shape_fn((items, 8), |(item, c)| {
        let noise: f32 = random.random_range(-0.5..0.5);
        noise + if group(item) == c { 1.0 } else { 0.0 }
    });
    let mut vectors = vectors;
    for mut row in vectors.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    vectors.row_mut(items / 2).fill(0.0);
    let train = Interactions::from_pairs(users, items, pairs).unwrap();
    (train, TextVectors::new(vectors).unwrap())
}

#[test]
fn with_all_items_as_sources_it_equals_the_dense_form() {
    let (train, text) = generated(80, 40, 1);
    for (l2, alpha) in [(3.0, 2.0), (30.0, 10.0), (1.0, 0.0)] {
        let dense = EaseConfig { l2, ..EaseConfig::default() };
        let form = Form::Local { sources: 39, rank: 0 };
        let local = EaseConfig { form, ..dense.clone() };
        let dense = Ease::fit_collective(&train, &text, alpha, &dense).unwrap();
        let local = Ease::fit_collective(&train, &text, alpha, &local).unwrap();
        for (a, b) in weights(&local).iter().zip(&weights(&dense)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        for (a, b) in local.diagonal().iter().zip(dense.diagonal()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

/// Users with nearly all items make every pair a candidate.
#[test]
fn bits_do_not_depend_on_threads() {
    let (train, text) = generated(150, 300, 2);
    let fit = |threads: usize, rank: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let form = Form::Local { sources: 20, rank };
            let config = EaseConfig { l2: 10.0, form, rows: 50, ..EaseConfig::default() };
            let ease = Ease::fit_collective(&train, &text, 3.0, &config).unwrap();
            let without = ease.score_without(3, &train.items(3)[1..]).unwrap();
            let diagonal: Vec<u64> = ease.diagonal().iter().map(|v| v.to_bits()).collect();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let weights = weights(&ease);
            (bits(weights.as_slice().unwrap()), bits(&without), diagonal)
        })
    };
    for rank in [0, 8] {
        let one = fit(1, rank);
        assert!(fit(2, rank) == one, "2 threads, rank {rank}");
        assert!(fit(4, rank) == one, "4 threads, rank {rank}");
    }
}

#[test]
fn chosen_models_are_the_same_for_any_number_of_threads_and_after_loading() {
    let (train, text) = generated(150, 120, 3);
    let valid = train.filter(|user, item| (user + 3 * item) % 7 == 0);
    let train = train.filter(|user, item| (user + 3 * item) % 7 != 0);
    let fit = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = LinearConfig { sources: vec![8, 16], ..LinearConfig::default() };
        pool.install(|| LinearModel::fit(&train, Some(&valid), Some(&text), &config, 9).unwrap())
    };
    let bits = |model: &LinearModel| -> Vec<u32> {
        let users = (0..150).flat_map(|user| model.score_items(train.items(user)));
        users.map(f32::to_bits).collect()
    };
    let one = fit(1);
    for threads in [2, 4] {
        assert_eq!(bits(&fit(threads)), bits(&one), "{threads} threads");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linear.safetensors");
    one.save(&path).unwrap();
    let loaded = LinearModel::load(&path, &train, None).unwrap();
    assert_eq!(bits(&loaded), bits(&one));
}

#[test]
fn odd_data_give_finite_scores() {
    let empty = |users, items| Interactions::empty(users, items).unwrap();
    let everyone = |users: u32, items: u32| {
        let pairs = (0..users).flat_map(|user| (0..items).map(move |item| (user, item)));
        Interactions::from_pairs(users as usize, items as usize, pairs).unwrap()
    };
    let cases = [
        ("nothing", empty(3, 4)),
        ("one user", everyone(1, 6)),
        ("one item", everyone(5, 1)),
        ("all the same", everyone(20, 8)),
        ("no item", empty(2, 0)),
    ];
    for (name, train) in cases {
        let items = train.n_items();
        let same = Array2::from_shape_fn((items, 3), |(_, c)| f32::from(u8::from(c == 0)));
        let mut half = same.clone();
        half.rows_mut().into_iter().step_by(2).for_each(|mut row| row.fill(0.0));
        for vectors in [None, Some(same), Some(half), Some(Array2::zeros((items, 3)))] {
            let text = vectors.map(|vectors| TextVectors::new(vectors).unwrap());
            for solver in [Solver::Dense, Solver::Local] {
                let config = LinearConfig { solvers: vec![solver], ..LinearConfig::default() };
                let model =
                    LinearModel::fit(&train, Some(&train), text.as_ref(), &config, 1).unwrap();
                let all: Vec<u32> = (0..items as u32).collect();
                let scores = model.score_items(&all);
                assert!(scores.iter().all(|s| s.is_finite()), "{name} {solver:?} {scores:?}");
                let without = model.score_without(0, &all).unwrap();
                assert!(without.iter().all(|s| s.is_finite()), "{name} {solver:?} {without:?}");
            }
            let form = Form::Local { sources: 3, rank: 2 };
            let config = EaseConfig { form, ..EaseConfig::default() };
            let ease = match &text {
                None => Ease::fit(&train, &config),
                Some(text) => Ease::fit_collective(&train, text, 1.0, &config),
            };
            let scores = ease.unwrap().score_items(&[0, 1, 2, 3]);
            assert!(scores.iter().all(|s| s.is_finite()), "{name} coarse {scores:?}");
        }
    }
}

/// The eigenvectors are those of all interactions, so the counts must contain all interactions too.
/// With the pairs of a sampled list, `A` without its largest eigenvectors is not positive definite.
#[test]
fn long_lists_keep_the_low_rank_part_exact() {
    let items = 2_100u32;
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    for user in 0..6 {
        pairs.extend((0..items).map(|item| (user, item)));
    }
    for user in 6..120u32 {
        pairs.extend((0..40).map(|n| (user, (user * 37 + n * n * 11) % items)));
    }
    let train = Interactions::from_pairs(120, items as usize, pairs).unwrap();
    let dense = Ease::fit(&train, &EaseConfig { l2: 30.0, ..EaseConfig::default() }).unwrap();
    let form = Form::Local { sources: 16, rank: 8 };
    let local = Ease::fit(&train, &EaseConfig { l2: 30.0, form, ..EaseConfig::default() }).unwrap();
    // The equal contributions of users with all items are in the low-rank part.
    let (a, b) = (dense.score_items(&[1, 2, 3]), local.score_items(&[1, 2, 3]));
    let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len() as f32;
    assert!((mean(&a) - mean(&b)).abs() < 0.05 * mean(&a).abs(), "{} {}", mean(&a), mean(&b));
}
