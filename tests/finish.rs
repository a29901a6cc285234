//! Measured runs that are finished for serving.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use glta::align::{ItemVectors, Person, finish_for_serving};
use glta::linear::LinearModel;
use glta::prelude::*;
use glta::shared::Silent;
use ndarray::Array2;

mod tastes;
mod tiny_llm;

use tastes::{config, data, language, split};

/// All interactions; a tenth of each user's is the validation part.
fn everything() -> RunData {
    let (dataset, _) = split();
    let parts = SplitConfig { test_ratio: 0.0, valid_ratio: 0.1, ..SplitConfig::default() };
    let split = Split::new(&dataset, &parts).unwrap();
    RunData::new(&dataset, &split, &TextConfig::default()).unwrap()
}

#[track_caller]
fn has_everything(recommender: &Recommender) {
    let (dataset, _) = split();
    for user in 0..dataset.n_users() as u32 {
        let history = recommender.history(user).unwrap();
        assert_eq!(history, dataset.interactions().items(user));
        let list = recommender.recommend(user, 20).unwrap();
        assert_eq!(list.len(), 20 - history.len());
        assert!(list.iter().all(|best| best.score.is_finite() && !history.contains(&best.item)));
    }
}

/// Vectors that distinguish the two kinds of items.
fn encoded() -> [ItemVectors; 1] {
    let value = |(item, column): (usize, usize)| {
        let kind = if item / 10 == column { 1.0 } else { 0.0 };
        kind + 0.1 * ((item * 7 + column * 5) % 11) as f32
    };
    [ItemVectors::new("own", Array2::from_shape_fn((20, 4), value))]
}

/// The linear model equals a fit of all data with the chosen settings.
#[test]
fn a_linear_run_is_refitted_with_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (measured, ready) = (folder.path().join("measured"), folder.path().join("ready"));
    let mut config = config(Preset::Default);
    config.item_text.encoders.clear();
    let run = Run::create(&measured, data(), config).unwrap();
    run.set_item_vectors(&encoded()).unwrap();
    let (_, before) = run.fit(None).unwrap();
    let (recommender, after) =
        finish_for_serving(&measured, &ready, everything(), None, &mut Silent).unwrap();
    has_everything(&recommender);
    let (before, after) = (before.linear.unwrap(), after.linear.unwrap());
    let config = Config::of_run(&measured).unwrap();
    let (text, _) = ItemVectors::join(&encoded(), &config.item_text.whiten).unwrap();
    let (dataset, _) = split();
    let (all, linear) = (dataset.interactions(), &config.linear);
    let model =
        LinearModel::refit_with(&before, all, Some(&text), linear, config.seed, &mut Silent);
    let model = model.unwrap();
    for item in 0..20 {
        let expected = model.explain(&[1, 2, 13], item).score;
        let got = recommender.explain(Person::Items(&[1, 2, 13]), item).unwrap().score;
        assert!((got - expected).abs() < 1e-6, "{item}: {got} {expected}");
    }
    assert_eq!(
        (before.form, before.l2, before.text, before.neighbours, before.popularity),
        (after.form, after.l2, after.text, after.neighbours, after.popularity)
    );
    let opened = Recommender::open(&ready).unwrap();
    has_everything(&opened);
    // It finds similar items and can grow, like one by `fit_for_serving`.
    let all = glta::align::ListOptions::default();
    let similar = opened.similar_items(3, 2, glta::align::Similarity::Text, &all).unwrap();
    assert_eq!(similar.len(), 2);

    // Nothing is overwritten, and other data are rejected.
    let again = finish_for_serving(&measured, &ready, everything(), None, &mut Silent);
    assert!(matches!(again, Err(Error::RunExists { .. })));
    let mut other = everything();
    other.items[0].raw_id = "another".into();
    let wrong = finish_for_serving(&measured, folder.path().join("x"), other, None, &mut Silent);
    assert!(wrong.unwrap_err().to_string().contains("users and items"));
    let none: &Path = &folder.path().join("none");
    assert!(finish_for_serving(none, folder.path().join("x"), data(), None, &mut Silent).is_err());
}

/// With the prompt path, graph and stages are trained on all data, for the best number of epochs.
#[test]
fn a_run_with_the_prompt_path_is_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    for (name, preset) in [("full", Preset::Full), ("paper", Preset::Paper)] {
        let (measured, ready) = (folder.path().join(name), folder.path().join("ready").join(name));
        let mut config = config(preset);
        // The correction of the prompt path always has this factor.
        config.model.mix = vec![0.5];
        let run = Run::create(&measured, data(), config).unwrap();
        let (_, before) = run.fit(Some(&language)).unwrap();
        let finished = finish_for_serving(&measured, &ready, everything(), None, &mut Silent);
        assert!(matches!(finished, Err(Error::NoLlm)), "{name}");
        std::fs::remove_dir_all(&ready).unwrap();
        let finished =
            finish_for_serving(&measured, &ready, everything(), Some(&language), &mut Silent);
        let (recommender, after) = finished.unwrap();
        assert!(recommender.has_prompt(), "{name}");
        let (dataset, _) = split();
        assert_eq!(recommender.history(3).unwrap(), dataset.interactions().items(3));
        let best = before.user_stage.unwrap().best_epoch.unwrap();
        assert_eq!(after.user_stage.unwrap().losses.len(), best, "{name}");
        let opened = Recommender::open_with(&ready, &language).unwrap();
        let list = |of: &Recommender| -> Vec<(u32, u32)> {
            let list = of.recommend(3, 5).unwrap();
            list.iter().map(|best| (best.item, best.score.to_bits())).collect()
        };
        assert_eq!(list(&opened), list(&recommender), "{name}");
    }
}
