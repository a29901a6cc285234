//! Tests of the whole linear model: fit, scores, file.

use std::ops::ControlFlow;

use glta_data::Interactions;
use glta_metrics::{EvaluationConfig, Metric, Scorer, evaluate};
use ndarray::{Array2, array};

use crate::weigh::Measured;
use crate::{
    Ease, EaseConfig, Error, Form, LinearConfig, LinearModel, LinearReport, LinearStage,
    LinearStep, Solver, TextVectors,
};

/// Returns training and validation data of users with one of two tastes, with four items per taste.
/// Item 7 has no interactions, but its text is like that of items 4 to 6.
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

fn vectors() -> TextVectors {
    TextVectors::new(Array2::from_shape_fn((8, 2), |(i, c)| f32::from(u8::from(i / 4 == c))))
        .unwrap()
}

fn of(solver: Solver) -> LinearConfig {
    LinearConfig {
        solvers: vec![solver],
        l2: vec![1.0, 5.0],
        text: vec![1.0, 2.0],
        ..Default::default()
    }
}

const BOTH: [Solver; 2] = [Solver::Dense, Solver::Local];

fn fit_by(texts: Option<&TextVectors>, config: &LinearConfig) -> LinearModel {
    let (train, valid) = data();
    LinearModel::fit(&train, Some(&valid), texts, config, 1).unwrap()
}

#[test]
fn texts_give_scores_to_cold_items() {
    for solver in BOTH {
        let with = fit_by(Some(&vectors()), &of(solver)).score_items(&[4, 5]);
        assert!(with[7] > with[0] && with[7] > 0.0, "{solver:?} {with:?}");
        let without = fit_by(None, &of(solver));
        assert_eq!(without.report.text, 0.0);
        assert_eq!(without.ease.score_items(&[4, 5])[7], 0.0);
    }
}

#[test]
fn training_scores_do_not_depend_on_the_user() {
    for new_items in [0.0, 0.2] {
        nothing_of_the_user_is_left(new_items);
    }
}

fn nothing_of_the_user_is_left(new_items: f64) {
    let (train, _) = data();
    // Make neighbours and popularity contribute, whatever the fit chose.
    let solvers = vec![Solver::Dense];
    let (l2, text) = (vec![1.0], vec![1.0]);
    let config = LinearConfig { solvers, l2, text, new_items, ..Default::default() };
    let mut model = fit_by(Some(&vectors()), &config);
    (model.report.neighbours, model.report.popularity) = (0.1, 0.01);
    let user = (0..30).find(|&u| train.items(u).len() > 1).unwrap();
    let context = &train.items(user)[..1];
    let rest = train.iter().filter(|&(u, _)| u != user);
    let others = Interactions::from_pairs(30, 8, rest).unwrap();
    let LinearReport { l2, text: weight, .. } = model.report;
    let vectors = vectors();
    let config = EaseConfig { l2, ..Default::default() };
    let ease = Ease::fit_collective(&others, &vectors, weight, &config).unwrap();
    let expected = LinearModel::new(ease, model.text.clone(), &others, model.report.clone());
    let expected = expected.score_items(context);
    let got = model.score_without(user, context).unwrap();
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{got} {expected}");
    }
    assert!(matches!(model.score_without(30, context), Err(Error::User { .. })));
}

/// Settings are chosen without some items; the final model is fitted with all items.
#[test]
fn chosen_for_new_items_and_fitted_on_all() {
    let ((train, valid), vectors) = (data(), vectors());
    // Only text neighbours can find a new item here, and a small weight is enough.
    let solvers = vec![Solver::Dense];
    let (l2, text) = (vec![1.0], vec![0.0]);
    let config = LinearConfig { solvers, l2, text, ..Default::default() };
    let without = fit_by(Some(&vectors), &config);
    let config = LinearConfig { new_items: 0.4, ..config };
    let model = fit_by(Some(&vectors), &config);
    assert!(model.report.neighbours > 0.0);
    assert_ne!(model.report.neighbours, without.report.neighbours);
    assert_eq!(model.ease.weights, without.ease.weights);
    assert_eq!(model.degrees, train.item_degrees());
    let config = EvaluationConfig { ks: vec![10], ..Default::default() };
    let expected = evaluate(&model, &valid, &[&train], &config).unwrap().get(Metric::Ndcg, 10);
    assert!((model.report.validation.unwrap() - expected.unwrap()).abs() < 1e-6);
}

#[test]
fn without_validation_data_the_middle_is_taken() {
    let (train, _) = data();
    let (vectors, config) = (vectors(), LinearConfig::default());
    let empty = Interactions::empty(30, 8).unwrap();
    for valid in [None, Some(&empty)] {
        let mut last = None;
        let progress = &mut |step: &LinearStep| {
            if step.stage == LinearStage::Columns {
                last = Some(*step);
            }
            ControlFlow::Continue(())
        };
        let model =
            LinearModel::fit_with(&train, valid, Some(&vectors), &config, 1, progress).unwrap();
        let LinearReport { form, l2, text, neighbours, popularity, validation, .. } =
            *model.report();
        assert_eq!((l2, text, neighbours, popularity), (100.0, 10.0, 0.0, 0.0));
        assert_eq!((form, validation), (Form::Local { sources: 64, rank: 0 }, None));
        let LinearStep { done, total, .. } = last.unwrap();
        assert_eq!((done, total), (8, 8));
    }
}

#[test]
fn a_training_user_is_scored_by_the_training_items() {
    let (train, _) = data();
    let model = fit_by(Some(&vectors()), &LinearConfig::default());
    let mut out = Array2::zeros((2, 8));
    model.score(&[4, 7], out.view_mut()).unwrap();
    for (row, user) in out.rows().into_iter().zip([4, 7]) {
        assert_eq!(row.to_vec(), model.score_items(train.items(user)));
    }
}

#[test]
fn round_trips_through_its_file() {
    let ((train, _), vectors) = (data(), vectors());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linear.safetensors");
    for (solver, rank) in [(Solver::Dense, 0), (Solver::Local, 0), (Solver::Local, 2)] {
        let mut model = fit_by(Some(&vectors), &of(solver));
        if rank > 0 {
            let form = Form::Local { sources: 64, rank };
            let LinearReport { l2, text, .. } = model.report;
            let config = EaseConfig { l2, form, ..Default::default() };
            model.ease = Ease::fit_collective(&train, &vectors, text, &config).unwrap();
            model.report.form = form;
        }
        model.report.neighbours = 0.1;
        model.save(&path).unwrap();
        let loaded = LinearModel::load(&path, &train, Some(&vectors)).unwrap();
        assert_eq!(loaded.report, model.report);
        assert_eq!(loaded.score_items(&[1, 5]), model.score_items(&[1, 5]));
        let user = (0..30).find(|&u| !train.items(u).is_empty()).unwrap();
        let without = |model: &LinearModel| model.score_without(user, train.items(user));
        assert_eq!(without(&loaded).unwrap(), without(&model).unwrap());

        let bare = LinearModel::load(&path, &train, None).unwrap();
        assert_eq!(bare.score_items(&[1, 5]), model.score_items(&[1, 5]));
        let again = without(&bare);
        match (solver, rank) {
            (Solver::Local, 0) => {
                let message = again.unwrap_err().to_string();
                assert!(message.contains("text vectors"), "{message}");
            }
            _ => assert_eq!(again.unwrap(), without(&model).unwrap()),
        }
        let fewer = Interactions::from_pairs(30, 7, []).unwrap();
        let message = LinearModel::load(&path, &fewer, None).unwrap_err().to_string();
        assert!(message.contains("linear.safetensors"), "{message}");
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let message = LinearModel::load(&path, &train, None).unwrap_err().to_string();
            assert!(message.contains("linear.safetensors"), "{message}");
        }
    }
}

/// Loading a file with changed numbers returns an error or a different model, but never panics.
#[test]
fn damaged_indices_are_rejected() {
    let ((train, _), vectors) = (data(), vectors());
    let model = fit_by(Some(&vectors), &of(Solver::Local));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linear.safetensors");
    model.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 8..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        match LinearModel::load(&path, &train, Some(&vectors)) {
            Ok(model) => drop(model.score_items(&[0, 1, 2, 3, 4, 5, 6, 7])),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > bytes.len() / 3, "{refused} of {}", bytes.len());
}

#[test]
fn cancelling_and_invalid_settings_are_errors() {
    let ((train, valid), config) = (data(), LinearConfig::default());
    let fit = |texts: Option<&TextVectors>, config: &LinearConfig| {
        LinearModel::fit(&train, Some(&valid), texts, config, 1)
    };
    let stop = &mut |_: &LinearStep| ControlFlow::Break(());
    let cancelled = LinearModel::fit_with(&train, Some(&valid), None, &config, 1, stop);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    let other = TextVectors::new(array![[1.0, 0.0]]).unwrap();
    let message = fit(Some(&other), &config).unwrap_err().to_string();
    assert!(message.contains("expected 8, one per item, got 1"), "{message}");
    let few = LinearConfig { max_items: 7, ..config.clone() };
    let model = fit(None, &few).unwrap();
    assert_eq!(model.report.form.solver(), Solver::Local);
    assert!(model.report.left_out.as_ref().unwrap().contains("`max_items`"));
    let few = LinearConfig { solvers: vec![Solver::Dense], ..few };
    let error = fit(None, &few).unwrap_err();
    assert!(matches!(error, Error::TooManyItems { items: 8, limit: 7, .. }), "{error}");
    let none = LinearConfig { l2: Vec::new(), ..config };
    assert!(matches!(fit(None, &none), Err(Error::Config { .. })));
}

/// The fast measurement of several weights, [`Measured::ndcg`], equals that of [`evaluate`].
#[test]
fn the_fast_measurement_of_weights_equals_the_usual_one() {
    let ((train, valid), vectors) = (data(), vectors());
    let config = EvaluationConfig { ks: vec![10], ..Default::default() };
    for solver in BOTH {
        for new_items in [0.0, 0.2] {
            let mut model = fit_by(Some(&vectors), &LinearConfig { new_items, ..of(solver) });
            for weights in [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.03, 0.001)] {
                let got = Measured::new(&train, &valid, 1)
                    .ndcg(&model, &[weights], &mut |_, _| Ok(()))
                    .unwrap()[0];
                (model.report.neighbours, model.report.popularity) = weights;
                let report = evaluate(&model, &valid, &[&train], &config).unwrap();
                let expected = report.get(Metric::Ndcg, 10).unwrap();
                assert!((got - expected).abs() < 1e-9, "{solver:?} {weights:?} {got} {expected}");
            }
        }
    }
}

#[test]
fn contributions_add_up_to_the_score() {
    let vectors = vectors();
    for solver in BOTH {
        let mut model = fit_by(Some(&vectors), &of(solver));
        model.set_weights(0.2, 0.05).unwrap();
        for target in 0..8 {
            let why = model.explain(&[1, 4, 5, 99, 4], target);
            assert_eq!(why.items.len(), 3);
            assert!(why.items.is_sorted_by(|a, b| a.1 >= b.1));
            let score = model.score_items(&[1, 4, 5])[target as usize];
            assert!((why.score - score).abs() < 1e-4 * (1.0 + score.abs()), "{solver:?} {target}");
        }
        assert!(model.explain(&[1], 8).items.is_empty());
    }
}

/// Lists from few touched items equal lists from all scores.
#[test]
fn lists_equal_sorted_scores() {
    let ((train, _), vectors) = (data(), vectors());
    for (solver, weights) in
        [(Solver::Local, (0.1, 0.02)), (Solver::Local, (0.0, 0.0)), (Solver::Dense, (0.1, 0.02))]
    {
        let mut model = fit_by(Some(&vectors), &of(solver));
        model.set_weights(weights.0, weights.1).unwrap();
        for user in 0..30 {
            let own = train.items(user);
            let skip = |item: u32| own.contains(&item) || item == 6;
            let scores = model.score_items(own);
            let mut order: Vec<u32> = (0..8).filter(|&item| !skip(item)).collect();
            order.sort_by(|&a, &b| {
                scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b))
            });
            let log_sum = scores.iter().map(|s| f64::from(*s).exp()).sum::<f64>().ln() as f32;
            for k in [0, 1, 3, 20] {
                let list = model.top_items(own, k, skip);
                let items: Vec<u32> = list.iter().map(|r| r.item).collect();
                assert_eq!(items, order[..k.min(order.len())], "{solver:?} user {user}");
                let logs = model.top_log_probabilities(own, k, skip);
                for (score, log) in list.iter().zip(&logs) {
                    assert!((score.score - scores[score.item as usize]).abs() < 1e-6);
                    assert_eq!(log.item, score.item);
                    let expected = score.score - log_sum;
                    assert!((log.score - expected).abs() < 1e-4, "{} {expected}", log.score);
                }
            }
        }
    }
}
