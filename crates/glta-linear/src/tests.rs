//! The linear model as a whole: fitted, asked, saved.

use std::ops::ControlFlow;

use glta_data::Interactions;
use glta_metrics::Scorer;
use ndarray::{Array2, ArrayView2, array};

use crate::{
    Ease, EaseConfig, Error, LinearConfig, LinearModel, LinearReport, LinearStep, SideInformation,
};

/// Two tastes of four items each; item 7 is had by nobody but described like items 4 to
/// 6. Training and validation data.
fn data() -> (Interactions, Interactions) {
    let has = |u: u32, i: u32| i < 7 && u % 2 == i / 4 && !(u + i).is_multiple_of(3);
    let pairs: Vec<(u32, u32)> =
        (0..30).flat_map(|u| (0..8).map(move |i| (u, i))).filter(|&(u, i)| has(u, i)).collect();
    let valid = |&(u, i): &(u32, u32)| (u * 5 + i).is_multiple_of(4);
    let part = |wanted: bool| {
        let pairs = pairs.iter().copied().filter(|pair| valid(pair) == wanted);
        Interactions::from_pairs(30, 8, pairs).unwrap()
    };
    (part(false), part(true))
}

fn vectors() -> Array2<f32> {
    Array2::from_shape_fn((8, 2), |(i, c)| f32::from(u8::from(i / 4 == c)))
}

fn fit(texts: Option<&Array2<f32>>) -> LinearModel {
    let config = LinearConfig { l2: vec![1.0, 5.0], text: vec![1.0, 2.0], ..Default::default() };
    fit_by(texts, &config)
}

fn fit_by(texts: Option<&Array2<f32>>, config: &LinearConfig) -> LinearModel {
    let (train, valid) = data();
    let texts = texts.map(|t| t.view());
    LinearModel::fit(&train, Some(&valid), texts, config, 1).unwrap()
}

#[test]
fn texts_reach_items_that_nobody_has() {
    let with = fit(Some(&vectors())).score_items(&[4, 5]);
    assert!(with[7] > with[0] && with[7] > 0.0, "{with:?}");
    let without = fit(None);
    assert_eq!(without.report.text, 0.0);
    assert_eq!(without.score_items(&[4, 5])[7], 0.0);
}

#[test]
fn training_scores_contain_nothing_of_the_user() {
    for new_items in [0.0, 0.2] {
        nothing_of_the_user_is_left(new_items);
    }
}

fn nothing_of_the_user_is_left(new_items: f64) {
    let (train, _) = data();
    // Neighbours and popularity count, whatever was chosen.
    let config = LinearConfig { l2: vec![1.0], text: vec![1.0], new_items, ..Default::default() };
    let mut model = fit_by(Some(&vectors()), &config);
    (model.report.neighbours, model.report.popularity) = (0.1, 0.01);
    let user = (0..30).find(|&u| train.items(u).len() > 1).unwrap();
    let context = &train.items(user)[..1];
    let rest = train.iter().filter(|&(u, _)| u != user);
    let others = Interactions::from_pairs(30, 8, rest).unwrap();
    let LinearReport { l2, text: weight, .. } = model.report;
    let vectors = vectors();
    let side = SideInformation { vectors: vectors.view(), weight };
    let ease =
        Ease::fit_collective(&others, side, &EaseConfig { l2, ..Default::default() }).unwrap();
    let expected = LinearModel::new(ease, model.text.clone(), &others, model.report.clone());
    let expected = expected.score_items(context);
    let got = model.score_without(user, context).unwrap();
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{got} {expected}");
    }
    assert!(matches!(model.score_without(30, context), Err(Error::User { .. })));
}

/// Settings are chosen without some items; the final model is fitted with all.
#[test]
fn chosen_for_new_items_and_fitted_on_all() {
    let ((train, valid), vectors) = (data(), vectors());
    // Only text neighbours can find a new item here, and a small weight is enough.
    let config = LinearConfig { l2: vec![1.0], text: vec![0.0], ..Default::default() };
    let without = fit_by(Some(&vectors), &config);
    let config = LinearConfig { new_items: 0.4, ..config };
    let model = fit_by(Some(&vectors), &config);
    assert!(model.report.neighbours > 0.0);
    assert_ne!(model.report.neighbours, without.report.neighbours);
    assert_eq!(model.ease.weights(), without.ease.weights());
    assert_eq!(model.degrees, train.item_degrees());
    let validation = model.validation(&train, &valid).unwrap();
    assert_eq!(model.report.validation, validation);
}

#[test]
fn without_validation_data_the_middle_is_taken() {
    let (train, _) = data();
    let (vectors, config) = (vectors(), LinearConfig::default());
    let empty = Interactions::empty(30, 8).unwrap();
    for valid in [None, Some(&empty)] {
        let mut steps = Vec::new();
        let progress = &mut |step: &LinearStep| {
            steps.push((step.done, step.total));
            ControlFlow::Continue(())
        };
        let texts = Some(vectors.view());
        let model = LinearModel::fit_with(&train, valid, texts, &config, 1, progress).unwrap();
        let LinearReport { l2, text, neighbours, popularity, validation, .. } = *model.report();
        assert_eq!((l2, text, neighbours, popularity), (100.0, 10.0, 0.0, 0.0));
        assert_eq!((validation, steps), (None, vec![(1, 1)]));
    }
}

#[test]
fn a_user_of_the_training_data_is_scored_by_their_items() {
    let ((train, _), model) = (data(), fit(Some(&vectors())));
    let mut out = Array2::zeros((2, 8));
    model.score(&[4, 7], out.view_mut()).unwrap();
    for (row, user) in out.rows().into_iter().zip([4, 7]) {
        assert_eq!(row.to_vec(), model.score_items(train.items(user)));
    }
}

#[test]
fn survives_its_file() {
    let ((train, _), vectors) = (data(), vectors());
    let mut model = fit(Some(&vectors));
    model.report.neighbours = 0.1;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linear.safetensors");
    model.save(&path).unwrap();
    let loaded = LinearModel::load(&path, &train, Some(vectors.view())).unwrap();
    assert_eq!(loaded.report, model.report);
    assert_eq!(loaded.score_items(&[1, 5]), model.score_items(&[1, 5]));
    let user = (0..30).find(|&u| !train.items(u).is_empty()).unwrap();
    let without = |model: &LinearModel| model.score_without(user, train.items(user)).unwrap();
    assert_eq!(without(&loaded), without(&model));

    let message = LinearModel::load(&path, &train, None).unwrap_err().to_string();
    assert!(message.contains("text neighbours"), "{message}");
    let fewer = Interactions::from_pairs(30, 7, []).unwrap();
    let message = LinearModel::load(&path, &fewer, None).unwrap_err().to_string();
    assert!(message.contains("weights"), "{message}");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 20, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let message = LinearModel::load(&path, &train, None).unwrap_err().to_string();
        assert!(message.contains("linear.safetensors"), "{message}");
    }
}

#[test]
fn cancelling_and_what_cannot_work_are_errors() {
    let ((train, valid), config) = (data(), LinearConfig::default());
    let fit = |texts: Option<ArrayView2<'_, f32>>, config: &LinearConfig| {
        LinearModel::fit(&train, Some(&valid), texts, config, 1)
    };
    let stop = &mut |_: &LinearStep| ControlFlow::Break(());
    let cancelled = LinearModel::fit_with(&train, Some(&valid), None, &config, 1, stop);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    let other = array![[1.0, 0.0]];
    let message = fit(Some(other.view()), &config).unwrap_err().to_string();
    assert!(message.contains("1 for 8"), "{message}");
    let few = LinearConfig { max_items: 7, ..config.clone() };
    // Before anything is computed from the vectors, which do not fit either.
    for texts in [None, Some(other.view())] {
        let error = fit(texts, &few).unwrap_err();
        assert!(matches!(error, Error::TooManyItems { items: 8, limit: 7, .. }), "{error}");
        assert!(error.to_string().contains("`max_items`"), "{error}");
    }
    let none = LinearConfig { l2: Vec::new(), ..config };
    assert!(matches!(fit(None, &none), Err(Error::Config { .. })));
}
