use std::sync::Arc;

use glta_data::Interactions;
use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::solve::counts::Counts;
use crate::{LinearConfig, Solver};

const ITEMS: usize = 90;

/// Returns the text vectors of 100 items in five groups. The first 90 items exist from the start.
fn vectors() -> Array2<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(21);
    let mut vectors = Array2::from_shape_fn((100, 8), |(item, c)| {
        random.random_range(-0.2f32..0.2) + if item % 5 == c { 1.0 } else { 0.0 }
    });
    for mut row in vectors.rows_mut() {
        let length = row.dot(&row).sqrt();
        row /= length;
    }
    vectors
}

fn train() -> Interactions {
    let mut random = ChaCha8Rng::seed_from_u64(22);
    let pairs: Vec<(u32, u32)> = (0..120u32)
        .flat_map(|user| (0..ITEMS as u32).map(move |item| (user, item)))
        .filter(|&(user, item)| random.random_bool(if user % 5 == item % 5 { 0.25 } else { 0.03 }))
        .collect();
    Interactions::from_pairs(120, ITEMS, pairs).unwrap()
}

fn growing(solver: Solver) -> Growing {
    let text = TextVectors::new(vectors().slice(s![..ITEMS, ..]).to_owned()).unwrap();
    let config = LinearConfig {
        solvers: vec![solver],
        sources: vec![12],
        rows: 1000,
        text_neighbours: 10,
        l2: vec![5.0],
        text: vec![2.0],
        ..LinearConfig::default()
    };
    let model = LinearModel::fit(&train(), None, Some(&text), &config, 1).unwrap();
    Growing::new(model, &train(), Some(&text)).unwrap()
}

/// Checks that the columns equal those of a new fit with the sources of the model.
fn assert_fresh(growing: &Growing) {
    let train = growing.interactions().unwrap();
    let text = growing.text().unwrap().unwrap();
    let local = growing.local.as_ref().unwrap();
    let gram = Gram {
        counts: Arc::new(Counts::new(&train, usize::MAX, &mut |_| Ok(())).unwrap()),
        degrees: Arc::new(train.item_degrees()),
        text: Some((text.clone(), Arc::new(text.squares()))),
        later: Vec::new(),
        weight: 2.0,
        l2: 5.0,
    };
    assert_eq!(growing.model.degrees, train.item_degrees());
    let mut scratch = Scratch::new(train.n_items());
    let mut expected = vec![vec![0.0f64; train.n_items()]; train.n_items()];
    for item in 0..train.n_items() as u32 {
        let item = item as usize;
        let sources = local.columns.row(item).0.to_vec();
        assert!(!sources.is_empty() && sources.is_sorted_by(|a, b| a < b), "{sources:?}");
        let column = gram.column(item, &sources, Own::default(), &mut scratch).unwrap();
        for (source, weight) in sources.iter().zip(&column.weights) {
            expected[*source as usize][item] = *weight;
        }
        let diagonal = growing.model.ease.diagonal[item];
        assert!((diagonal - column.diagonal).abs() < 1e-6, "P of {item}");
    }
    for (source, expected) in expected.iter().enumerate() {
        let scores = growing.model.ease.score_items(&[source as u32]);
        for (target, (got, expected)) in scores.iter().zip(expected).enumerate() {
            let got = f64::from(*got);
            assert!((got - expected).abs() < 1e-5, "B[{source}, {target}]: {got} {expected}");
        }
    }
}

#[test]
fn nothing_new_changes_nothing() {
    let mut growing = growing(Solver::Local);
    assert_fresh(&growing);
    let before = growing.model.score_items(&[1, 2, 3]);
    assert_eq!(growing.fold().unwrap(), 0);
    growing.add_interactions(&train().iter().take(40).collect::<Vec<_>>()).unwrap();
    assert_eq!(growing.fold().unwrap(), 0);
    assert_eq!(growing.model.score_items(&[1, 2, 3]), before);
}

#[test]
fn folding_equals_a_new_fit_from_the_same_sources() {
    let mut growing = growing(Solver::Local);
    let new = growing.add_items(Some(vectors().slice(s![ITEMS.., ..])), 10).unwrap();
    assert_eq!(new, 90..100);
    let pairs: Vec<(u32, u32)> = vec![(0, 90), (5, 90), (10, 90), (130, 3), (130, 90), (7, 88)];
    growing.add_interactions(&pairs).unwrap();
    assert_eq!(growing.history(130), [3, 90]);
    assert_eq!(growing.n_users(), 131);
    let solved = growing.fold().unwrap();
    assert!((4..80).contains(&solved), "{solved}");
    assert_fresh(&growing);
    // Users buy item 90 with items of its group, so they become sources of each other.
    let scores = growing.model.score_items(&[90]);
    assert!(scores.iter().filter(|&&s| s > 0.0).count() > 3);
}

#[test]
fn a_forgotten_user_has_no_effect() {
    let mut growing = growing(Solver::Local);
    growing.add_items(Some(vectors().slice(s![ITEMS.., ..])), 10).unwrap();
    growing.add_interactions(&[(33, 91), (200, 91), (200, 12)]).unwrap();
    growing.forget_user(33).unwrap();
    assert!(growing.history(33).is_empty());
    assert_fresh(&growing);
    growing.forget_user(200).unwrap();
    assert_fresh(&growing);
    growing.forget_user(999).unwrap();

    // Without the additions the model equals the model without the user, whatever happened in
    // between.
    let mut other = self::growing(Solver::Local);
    let text = other.text().unwrap().unwrap();
    other.add_interactions(&[(33, 8)]).unwrap();
    other.forget_user(33).unwrap();
    assert_fresh(&other);
    assert_eq!(other.text().unwrap().unwrap(), text);
}

#[test]
fn new_items_are_found_by_similar_items() {
    for solver in [Solver::Local, Solver::Dense] {
        let mut growing = growing(solver);
        growing.add_items(Some(vectors().slice(s![ITEMS.., ..])), 10).unwrap();
        for new in 90..100u32 {
            // The best items for a user with the new item are in its group, and single items of the
            // group give the new item a score.
            let best = growing.model.top_items(&[new], 5, |item| item == new);
            let same = best.iter().filter(|r| r.item % 5 == new % 5).count();
            assert!(same >= 4, "{solver:?} {new}: {best:?}");
            let alike = (0..ITEMS as u32).filter(|item| item % 5 == new % 5);
            let heard =
                alike.filter(|&item| growing.model.score_items(&[item])[new as usize] > 0.0);
            assert!(heard.count() > 3, "{solver:?} {new}");
        }
    }
}

#[test]
fn a_grown_model_round_trips_and_grows_further() {
    let mut growing = growing(Solver::Local);
    growing.add_items(Some(vectors().slice(s![ITEMS..95, ..])), 5).unwrap();
    growing.add_interactions(&[(1, 92), (2, 92), (3, 92)]).unwrap();
    growing.fold().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linear.safetensors");
    growing.model.save(&path).unwrap();
    let (train, text) = (growing.interactions().unwrap(), growing.text().unwrap());
    let loaded = LinearModel::load(&path, &train, text.as_ref()).unwrap();
    for items in [&[92u32, 1][..], &[4], &[90, 91, 94]] {
        assert_eq!(loaded.score_items(items), growing.model.score_items(items));
    }
    let mut again = Growing::new(loaded, &train, text.as_ref()).unwrap();
    again.add_items(Some(vectors().slice(s![95.., ..])), 5).unwrap();
    again.add_interactions(&[(4, 99), (9, 99)]).unwrap();
    again.fold().unwrap();
    assert_fresh(&again);
}

#[test]
fn mismatched_data_are_rejected() {
    let mut growing = growing(Solver::Local);
    let (narrow, all) = (Array2::zeros((1, 3)), vectors());
    for (vectors, count) in [(Some(narrow.view()), 1), (None, 1), (Some(all.view()), 3)] {
        assert!(matches!(growing.add_items(vectors, count), Err(Error::Grow(_))));
    }
    let mut bad = vectors().slice(s![..1, ..]).to_owned();
    bad[(0, 3)] = f32::NAN;
    assert!(growing.add_items(Some(bad.view()), 1).is_err());
    let message = growing.add_interactions(&[(0, 1), (0, 90)]).unwrap_err().to_string();
    assert!(message.contains("item 90") && message.contains("90"), "{message}");
    assert_eq!(growing.n_items(), ITEMS);
    let other = Interactions::from_pairs(3, 4, []).unwrap();
    assert!(Growing::new(growing.into_model(), &other, None).is_err());
}

/// Forgetting a user removes all of the user's counts, also if a long list was sampled for
/// counting.
#[test]
fn a_user_with_many_items_is_forgotten_exactly() {
    let items = LONGEST_LIST + 60;
    let some =
        (1..40u32).flat_map(|user| (0..12).map(move |n| (user, (user * 31 + n * 53) % 2_000)));
    for (first, added) in [(items - 2, 2), (LONGEST_LIST - 2, 6)] {
        let own = (0..first as u32).map(|item| (0, item));
        let train = Interactions::from_pairs(40, items, own.chain(some.clone())).unwrap();
        let config = LinearConfig {
            solvers: vec![Solver::Local],
            sources: vec![6],
            rows: items,
            l2: vec![5.0],
            ..LinearConfig::default()
        };
        let model = LinearModel::fit(&train, None, None, &config, 1).unwrap();
        let mut growing = Growing::new(model, &train, None).unwrap();
        let new: Vec<(u32, u32)> = (0..added).map(|n| (0, first as u32 + n)).collect();
        growing.add_interactions(&new).unwrap();
        growing.forget_user(0).unwrap();
        let rest = Interactions::from_pairs(40, items, some.clone()).unwrap();
        let fresh = Counts::new(&rest, usize::MAX, &mut |_| Ok(())).unwrap();
        let counts = &growing.local.as_ref().unwrap().gram.counts;
        for item in 0..items {
            assert_eq!(counts.row(item), fresh.row(item), "{first} of {item}");
        }
        assert_eq!(growing.model.degrees, rest.item_degrees());
    }
}

#[test]
fn other_forms_are_fitted_again() {
    let text = TextVectors::new(vectors().slice(s![..ITEMS, ..]).to_owned()).unwrap();
    let form = Form::Local { sources: 12, rank: 4 };
    let config = LinearConfig { l2: vec![5.0], text: vec![2.0], ..LinearConfig::default() };
    let chosen = LinearModel::fit(&train(), None, Some(&text), &config, 1).unwrap();
    let chosen = crate::LinearReport { form, ..chosen.report().clone() };
    let silent = &mut glta_core::Silent;
    let model =
        LinearModel::refit_with(&chosen, &train(), Some(&text), &config, 1, silent).unwrap();
    let mut growing = Growing::new(model, &train(), Some(&text)).unwrap();
    growing.add_items(Some(vectors().slice(s![ITEMS.., ..])), 10).unwrap();
    growing.add_interactions(&[(3, 95), (8, 95), (13, 95)]).unwrap();
    growing.fold().unwrap();
    growing.forget_user(8).unwrap();
    let (train, text) = (growing.interactions().unwrap(), growing.text().unwrap());
    let fresh =
        LinearModel::refit_with(&chosen, &train, text.as_ref(), &config, 1, silent).unwrap();
    let same = growing.model.ease.score_items(&[95, 3]);
    assert_eq!(same, fresh.ease.score_items(&[95, 3]));
}

/// The model uses the current histories, and `score_without` is an error while the model grows.
#[test]
fn the_model_follows_the_changes() {
    let mut growing = growing(Solver::Local);
    growing.add_interactions(&[(7, 3), (500, 3)]).unwrap();
    growing.forget_user(9).unwrap();
    let model = growing.model();
    let of = |user: u32| {
        let mut out = Array2::zeros((1, ITEMS));
        glta_metrics::Scorer::score(model, &[user], out.view_mut()).unwrap();
        out.row(0).to_vec()
    };
    assert_eq!(of(9), model.score_items(&[]));
    assert_eq!(of(500), model.score_items(&[3]));
    assert_eq!(of(7), model.score_items(growing.history(7)));
    assert!(matches!(model.score_without(7, &[3]), Err(Error::Grow(_))));
    let history = growing.history(7).to_vec();
    let model = growing.into_model();
    let without = model.score_without(7, &history[1..]).unwrap();
    assert!(without.iter().all(|score| score.is_finite()));
}
