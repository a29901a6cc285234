//! AlphaRec's row on a generated shop, without a language model.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use glta_align::{Encoders, ItemEncoder, ItemVectors};
use glta_baselines::{AlphaRec, AlphaRecConfig};
use glta_core::Silent;
use glta_data::{Dataset, Item, ShopConfig, Split};
use glta_eval::{Density, Error, Event, Experiment, ExperimentConfig, Preset};
use glta_metrics::{EvaluationConfig, Metric, evaluate};

fn shop() -> Dataset {
    Dataset::shop(&ShopConfig { users: 60, items: 80, ..ShopConfig::default() }).unwrap()
}

fn config() -> ExperimentConfig {
    let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
    config.run.only = vec!["AlphaRec".into()];
    config.baselines.temperatures = vec![0.1, 0.3];
    config.baselines.contrastive_epochs = Some(10);
    config
}

#[test]
fn the_row_equals_the_model_by_hand_and_is_kept() {
    let (folder, config, shop) = (tempfile::tempdir().unwrap(), config(), shop());
    let record = Experiment::new(&shop, folder.path(), config.clone()).run().unwrap();
    let row = record.row("AlphaRec", 2024).unwrap();

    let texts = shop.texts(&config.protocol.texts).unwrap();
    let item_text = &config.glta.item_text;
    let vectors = Encoders::default().encode(ItemEncoder::TfIdf, &texts, item_text, &mut Silent);
    let (joined, _) = ItemVectors::join(&[vectors.unwrap().unwrap()], &item_text.whiten).unwrap();
    let split = Split::new(&shop, &config.protocol.split_config(2024)).unwrap();
    let mut best: Option<(f64, f64, f64)> = None;
    for temperature in [0.1, 0.3] {
        let alpharec = AlphaRecConfig {
            temperature,
            epochs: 10,
            batch_size: 512,
            seed: 2024,
            ..AlphaRecConfig::default()
        };
        let model = AlphaRec::new(alpharec).unwrap();
        let trained = model.train(&split.train, Some(&split.valid), joined.view()).unwrap();
        let masked = [&split.train, &split.valid];
        let scorer = trained.embeddings.scorer();
        let test = evaluate(&scorer, &split.test, &masked, &EvaluationConfig::default()).unwrap();
        let valid = trained.best_validation().unwrap();
        if best.is_none_or(|best| valid > best.0) {
            best = Some((valid, temperature, test.get(Metric::Ndcg, 20).unwrap()));
        }
    }
    let (valid, temperature, test) = best.unwrap();
    assert_eq!(row.settings["temperature"], temperature);
    assert_eq!((row.metrics["valid_N@10"], row.metrics["N@20"]), (valid, test));
    assert_eq!((&row.settings["tried"], row.epochs), (&serde_json::json!(2), 10));
    assert_eq!(row.settings["encoders"], serde_json::json!(["TF-IDF"]));
    assert_eq!(row.settings["encoders_left_out"], serde_json::json!(["language_model"]));

    // A resumed experiment keeps the existing row.
    let mut all = config;
    all.run.only = ["Popularity", "AlphaRec"].map(String::from).to_vec();
    let again = Experiment::new(&shop, folder.path(), all.clone()).resume(true).run().unwrap();
    assert_eq!(again.rows[0], record.rows[0]);
    assert_eq!(again.systems(), ["AlphaRec", "Popularity"]);
    all.baselines.temperatures = vec![0.1];
    let other = Experiment::new(&shop, folder.path(), all).resume(true).run().unwrap_err();
    assert!(other.to_string().contains("baselines.temperatures"), "{other}");
}

/// Covers AlphaRec and a contrastive model with embeddings.
#[test]
fn an_interrupted_search_continues_with_the_next_setting() {
    let (folder, mut config, shop) = (tempfile::tempdir().unwrap(), config(), shop());
    config.run.only = vec!["HCCF".into(), "AlphaRec".into()];
    config.baselines.graph_l2 = vec![1e-3, 1e-2];
    // Stops each system in the first epoch of its second setting.
    let mut worked: Vec<String> = Vec::new();
    let mut run = |stop: Option<&str>| {
        worked.clear();
        let experiment = Experiment::new(&shop, folder.path(), config.clone()).resume(true);
        let record = experiment.run_with(&mut |event: &Event<'_>| {
            if let Event::Work { work, .. } = event {
                worked.push((*work).to_owned());
                if stop == Some(*work) {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        worked.dedup();
        (record, worked.iter().filter(|work| !work.contains("TF")).cloned().collect::<Vec<_>>())
    };
    for stop in ["HCCF 2/2", "AlphaRec 2/2"] {
        assert!(matches!(run(Some(stop)).0, Err(Error::Cancelled)));
    }
    let (record, worked) = run(None);
    assert_eq!(worked, ["AlphaRec 2/2"]);
    let other = tempfile::tempdir().unwrap();
    let whole = Experiment::new(&shop, other.path(), config).run().unwrap();
    for (row, resumed) in whole.rows.iter().zip(record.unwrap().rows) {
        assert_eq!((&row.metrics, &row.settings), (&resumed.metrics, &resumed.settings));
        assert_eq!(row.curve, resumed.curve);
    }
}

#[test]
fn it_is_skipped_without_texts_or_encoders() {
    let (folder, shop) = (tempfile::tempdir().unwrap(), shop());
    let items = shop.items().iter().map(|item| Item::new(&item.raw_id)).collect();
    let bare = Dataset::from_dense("bare", shop.n_users(), items, shop.interactions().iter());
    let bare = bare.unwrap();
    let record = Experiment::new(&bare, folder.path(), config()).run().unwrap();
    assert_eq!(record.skipped[0].reason, "it needs texts, and 0 of 80 items have one");

    let mut config = config();
    config.glta.item_text.encoders.clear();
    let folder = tempfile::tempdir().unwrap();
    let record = Experiment::new(&shop, folder.path(), config.clone()).run().unwrap();
    assert!(record.rows.is_empty() && record.skipped[0].reason.contains("none of the encoders"));
    for (set, named) in [
        ("baselines.temperatures=[]", "at least one value"),
        ("baselines.temperatures=[0.0]", "0 is not a positive number"),
    ] {
        let mut wrong = config.clone();
        wrong.set(set).unwrap();
        let problem = wrong.validate().unwrap_err().to_string();
        assert!(problem.contains("temperatures") && problem.contains(named), "{problem}");
    }
}
