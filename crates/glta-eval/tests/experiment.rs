//! Experiments with the public API, on a generated shop and without a language model.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;

use glta_align::{ItemEncoder, LanguageModel};
use glta_core::{Progress, TextEncoder};
use glta_data::{Dataset, Interaction, Item, ShopConfig, Split};
use glta_eval::{
    BoxError, Density, Error, Event, Experiment, ExperimentConfig, Fitted, MetricAt, Preset,
    Record, Seed, System, evaluate_lists,
};
use glta_linear::{Ease, EaseConfig};
use glta_llm::Device;
use glta_metrics::{EvaluationConfig, Metric, Scorer, ScorerError, evaluate};
use ndarray::{Array2, ArrayViewMut2};
use ndarray_npy::WriteNpyExt;

fn shop() -> Dataset {
    Dataset::shop(&ShopConfig { users: 60, items: 80, ..ShopConfig::default() }).unwrap()
}

fn config(only: &[&str]) -> ExperimentConfig {
    let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
    config.run.only = only.iter().map(|name| (*name).to_owned()).collect();
    config.glta.graph.epochs = 5;
    config.glta.user_stage.train.epochs = 1;
    config.baselines.ease_l2 = vec![10.0, 100.0];
    config.baselines.graph_l2 = vec![1e-3];
    config
}

fn run(out: &Path, config: &ExperimentConfig) -> Result<Record, Error> {
    Experiment::new(&shop(), out, config.clone()).resume(true).run()
}

#[test]
fn a_row_equals_the_parts_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["EASE"]);
    let record = run(folder.path(), &config).unwrap();

    // Compute the same values by hand.
    let shop = shop();
    let split = Split::new(&shop, &config.protocol.split_config(2024)).unwrap();
    let valid_config = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let (forms, _) = config.glta.linear.forms(&split.train).unwrap();
    assert_eq!(forms.len(), 2);
    let mut best: Option<(f64, f64, Ease)> = None;
    for form in forms {
        for l2 in [10.0, 100.0] {
            let config = EaseConfig { l2, form, ..EaseConfig::default() };
            let ease = Ease::fit(&split.train, &config).unwrap();
            let report = evaluate(&ease, &split.valid, &[&split.train], &valid_config).unwrap();
            let value = report.get(Metric::Ndcg, 10).unwrap();
            if best.as_ref().is_none_or(|best| value > best.0) {
                best = Some((value, l2, ease));
            }
        }
    }
    let best = best.unwrap();
    let masked = [&split.train, &split.valid];
    let test = evaluate(&best.2, &split.test, &masked, &EvaluationConfig::default()).unwrap();
    let row = record.row("EASE", 2024).unwrap();
    assert_eq!(row.settings["l2"], best.1);
    assert_eq!(row.metrics["valid_N@10"], best.0);
    for (name, metric, k) in [("P@5", Metric::Precision, 5), ("N@20", Metric::Ndcg, 20)] {
        assert_eq!(row.metrics[name], test.get(metric, k).unwrap(), "{name}");
    }

    // The file of users has raw ids and gives the same means.
    let users = record.users("EASE", 2024).unwrap();
    assert_eq!(users.len(), test.users().len());
    let user = test.users()[3];
    assert_eq!(users[3].user, shop.users()[user as usize]);
    let raw = |items: &[u32]| -> Vec<String> {
        items.iter().map(|&item| shop.items()[item as usize].raw_id.clone()).collect()
    };
    assert_eq!(users[3].recommended, raw(test.ranking(3)));
    assert_eq!(users[3].test, raw(split.test.items(user)));
    for (name, mean) in evaluate_lists(&users, &config.protocol.metrics).unwrap() {
        assert!((mean - row.metrics[&name]).abs() < 1e-12, "{name}");
    }
}

#[test]
fn rows_are_kept_when_systems_and_seeds_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path(), &config(&["Popularity"])).unwrap();
    let mut more = config(&["Popularity", "EASE", "LightGCN", "GLTA no LLM"]);
    more.run.seeds = vec![2024, 7];
    let second = run(folder.path(), &more).unwrap();
    assert_eq!(second.rows.len(), 8);
    assert_eq!(second.rows[0], first.rows[0]);
    assert_eq!(Record::load(folder.path()).unwrap().unwrap().rows, second.rows);
    // A single run gives the same figures.
    let other = tempfile::tempdir().unwrap();
    let whole = run(other.path(), &more).unwrap();
    for row in &whole.rows {
        assert_eq!(row.metrics, second.row(&row.system, row.seed).unwrap().metrics);
    }
    // All rows exist already.
    let again = run(folder.path(), &more).unwrap();
    assert_eq!(again.rows, second.rows);
    let pairs = second.comparisons("EASE").unwrap();
    assert!(
        pairs.iter().any(|c| c.against == "LightGCN"
            && c.metric == "N@20"
            && c.pairs <= 60
            && c.seeds == 2)
    );
}

#[test]
fn another_experiment_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let base = config(&["Popularity"]);
    run(folder.path(), &base).unwrap();
    let again = Experiment::new(&shop(), folder.path(), base.clone()).run();
    assert!(matches!(again, Err(Error::Exists { .. })));
    let mut other = base.clone();
    other.protocol.test_ratio = 0.3;
    let message = run(folder.path(), &other).unwrap_err().to_string();
    assert!(message.contains("protocol.test_ratio"), "{message}");
    let small = Dataset::shop(&ShopConfig { users: 50, items: 80, ..ShopConfig::default() });
    let small = small.unwrap();
    let message = Experiment::new(&small, folder.path(), base.clone()).resume(true).run();
    assert!(message.unwrap_err().to_string().contains("other data"));
    std::fs::write(folder.path().join("metrics.json"), "{").unwrap();
    let message = run(folder.path(), &base).unwrap_err().to_string();
    assert!(message.contains("metrics.json"), "{message}");
}

#[test]
fn names_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let message = run(folder.path(), &config(&["EASY"])).unwrap_err().to_string();
    assert!(message.contains("`EASY`") && message.contains("EASE"), "{message}");
    let named = run(folder.path(), &config(&["GLTA"])).unwrap_err();
    assert!(matches!(named, Error::NoLanguage { system } if system == "GLTA"));
    let shop = shop();
    for name in ["EASE", "text knn"] {
        let clash = Experiment::new(&shop, folder.path(), config(&[])).system(Own(name));
        assert!(clash.run().unwrap_err().to_string().contains("the same file name"));
    }
}

/// A system that prefers items with low ids.
struct Own(&'static str);

struct LowIds(usize);

impl Scorer for LowIds {
    fn n_items(&self) -> usize {
        self.0
    }

    fn score(&self, _: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        out.indexed_iter_mut().for_each(|((_, item), score)| *score = -(item as f32));
        Ok(())
    }
}

impl System for Own {
    fn name(&self) -> &str {
        self.0
    }

    fn fit(&self, seed: &mut Seed<'_>) -> Result<Fitted, BoxError> {
        if self.0 == "fails" {
            return Err("on purpose".into());
        }
        Ok(Fitted::new(LowIds(seed.split().train.n_items())).setting("order", "ascending"))
    }
}

#[test]
fn own_systems_have_rows_and_those_without_a_model_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&[]);
    config.protocol.cold_ratio = 0.1;
    let shop = shop();
    let record = Experiment::new(&shop, folder.path(), config).system(Own("low")).run().unwrap();
    assert_eq!(
        record.systems(),
        ["Popularity", "EASE", "text-kNN", "EASE + text", "LightGCN", "low"]
    );
    let skipped: Vec<&str> = record.skipped.iter().map(|s| s.system.as_str()).collect();
    assert_eq!(skipped, ["GLTA"]);
    assert_eq!(record.row("low", 2024).unwrap().settings["order"], "ascending");
    assert_eq!(record.main_system(), Some("low"));
    assert!(record.row("low", 2024).unwrap().cold.contains_key("cold/all N"));
    for table in [record.table(), record.by_degree(), record.by_activity(), record.cold()] {
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert_eq!(table.lines().filter(|line| line.starts_with("EASE  ")).count(), 1);
    }
    assert!(record.table().contains('*'));
}

#[test]
fn a_failure_names_the_system_and_keeps_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let only = config(&["Popularity", "fails"]);
    let shop = shop();
    let error = Experiment::new(&shop, folder.path(), only).system(Own("fails")).run().unwrap_err();
    assert!(error.to_string().contains("fails, seed 2024"));
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "on purpose");
    assert_eq!(Record::load(folder.path()).unwrap().unwrap().systems(), ["Popularity"]);
}

#[test]
fn a_cancelled_experiment_resumes_to_the_same_rows() {
    let only = config(&["Popularity", "EASE", "LightGCN"]);
    let folder = tempfile::tempdir().unwrap();
    let shop = shop();
    let mut seen = 0;
    let cancelled =
        Experiment::new(&shop, folder.path(), only.clone()).run_with(&mut |event: &Event<'_>| {
            seen += usize::from(matches!(event, Event::Row(_)));
            if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert_eq!(Record::load(folder.path()).unwrap().unwrap().rows.len(), 2);
    let resumed = run(folder.path(), &only).unwrap();
    let other = tempfile::tempdir().unwrap();
    let whole = run(other.path(), &only).unwrap();
    for (a, b) in resumed.rows.iter().zip(&whole.rows) {
        assert_eq!((&a.system, &a.metrics, &a.settings), (&b.system, &b.metrics, &b.settings));
    }
}

#[test]
fn splits_and_metrics_are_configured() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&["Popularity"]);
    config.set("protocol.split=leave_one_out").unwrap();
    config.set("protocol.metrics=[\"H@3\", \"MRR@30\"]").unwrap();
    let record = run(folder.path(), &config).unwrap();
    let row = record.row("Popularity", 2024).unwrap();
    let names: Vec<&String> = row.metrics.keys().collect();
    assert_eq!(names, ["H@3", "MRR@30", "valid_N@10"]);
    assert!(record.users("Popularity", 2024).unwrap().iter().all(|user| user.test.len() == 1));
    assert_eq!(record.protocol.split, "leave one out");

    let metrics: Vec<MetricAt> = vec!["P@1".parse().unwrap(), "H@3".parse().unwrap()];
    let again = record.with_metrics(&metrics).unwrap();
    assert_eq!(again.value("Popularity", "H@3"), record.value("Popularity", "H@3"));
    assert!(again.value("Popularity", "P@1").is_some());
    let message = record.with_metrics(&["P@31".parse().unwrap()]).unwrap_err().to_string();
    assert!(message.contains("30 items"), "{message}");

    for (set, named) in [
        ("protocol.valid_ratio=0", "protocol.valid_ratio"),
        ("run.seeds=[]", "run.seeds"),
        ("baselines.graph_l2=[]", "baselines.graph_l2"),
    ] {
        let mut invalid = config.clone();
        invalid.set(set).unwrap();
        assert!(invalid.validate().unwrap_err().to_string().contains(named), "{set}");
    }
    for (set, named) in [("seed=7", "run.seeds"), ("graph.l2=0.1", "graph_l2")] {
        assert!(config.set(set).unwrap_err().to_string().contains(named), "{set}");
    }
    // The generated shop has no times.
    config.set("protocol.split=temporal").unwrap();
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &config).unwrap_err().to_string().contains("timestamps"));
    assert!(config.set("protocol.split=tomorrow").is_err());
    assert!(config.set("preset=paper").unwrap_err().to_string().contains("must be set before"));
}

#[test]
fn lists_by_raw_ids_are_checked() {
    let result = |user: &str, recommended: &[&str]| glta_eval::UserResult {
        user: user.to_owned(),
        recommended: recommended.iter().map(|item| (*item).to_owned()).collect(),
        test: vec!["a".into()],
        metrics: Default::default(),
    };
    let metrics: Vec<MetricAt> = vec!["P@2".parse().unwrap()];
    let means = evaluate_lists(&[result("x", &["b", "a"]), result("y", &["c"])], &metrics).unwrap();
    assert_eq!(means["P@2"], 0.25);
    let problem = |results: &[glta_eval::UserResult]| {
        evaluate_lists(results, &metrics).unwrap_err().to_string()
    };
    let twice = problem(&[result("x", &["b", "b"])]);
    assert!(twice.contains("list of x has the item b twice"), "{twice}");
    let short = problem(&[result("x", &["b"])]);
    assert!(short.contains("P@2: the longest list has only 1 items"), "{short}");
    assert!(evaluate_lists(&[result("x", &["b", "c"]), result("x", &["a"])], &metrics).is_err());
    assert!(evaluate_lists(&[], &metrics).is_err());
}

#[test]
fn embeddings_of_other_settings_are_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path(), &config(&["LightGCN"])).unwrap();
    // Only the record identifies the experiment of a folder.
    std::fs::remove_file(folder.path().join("metrics.json")).unwrap();
    let mut other = config(&["LightGCN"]);
    other.protocol.test_ratio = 0.4;
    let second = run(folder.path(), &other).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let expected = run(fresh.path(), &other).unwrap();
    assert_eq!(second.rows[0].metrics, expected.rows[0].metrics);
    assert_ne!(second.rows[0].metrics, first.rows[0].metrics);
}

#[test]
fn a_folder_is_recorded_at_the_start_and_locked() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop();
    let begin = || Experiment::new(&shop, folder.path(), config(&["fails"])).system(Own("fails"));
    assert!(matches!(begin().run(), Err(Error::System { .. })));
    assert!(matches!(begin().run(), Err(Error::Exists { .. })));
    let held = glta_core::lock_folder(folder.path()).unwrap();
    assert!(matches!(begin().resume(true).run(), Err(Error::Locked { .. })));
    drop(held);
    assert!(matches!(begin().resume(true).run(), Err(Error::System { .. })));
}

#[test]
fn the_share_of_new_items_follows_the_ratios_unless_it_is_set() {
    let mut config = config(&[]);
    config.hold_out_items(0.1);
    let share = config.glta.linear.new_items;
    // Cold items are a tenth of the items, and there are half as many validation as test items.
    assert!((share - 1.0 / 19.0).abs() < 1e-12, "{share}");
    config.set("protocol.valid_ratio=0.2").unwrap();
    assert!((config.glta.linear.new_items - 0.1).abs() < 1e-12);
    config.set("linear.new_items=0.3").unwrap();
    config.set("protocol.valid_ratio=0.1").unwrap();
    assert_eq!(config.glta.linear.new_items, 0.3);
}

#[test]
fn a_large_catalogue_uses_the_local_form() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&[]);
    config.glta.backbone = glta_align::Backbone::None;
    config.glta.linear.max_items = 10;
    config.run.controls = true;
    config.run.only = ["EASE", "EASE + text", "Linear"].map(String::from).to_vec();
    let record = run(folder.path(), &config).unwrap();
    assert_eq!(record.systems(), ["EASE", "EASE + text", "Linear"]);
    for row in &record.rows {
        let settings = row.settings.get("linear").cloned().unwrap_or_default();
        let form = settings.get("form").or(row.settings.get("form")).unwrap();
        assert_eq!(form["solver"], "local", "{}", row.system);
    }
    let ease = &record.rows[0].settings["left_out"];
    let linear = &record.rows[2].settings["linear"]["left_out"];
    for problem in [ease, linear] {
        assert!(problem.as_str().unwrap().contains("80 items"), "{problem}");
    }
}

#[test]
fn a_catalogue_without_texts_is_trained_on_the_graph_alone() {
    let shop = shop();
    let items = shop.items().iter().map(|item| Item::new(&item.raw_id)).collect();
    let pairs = shop.interactions().iter();
    let bare = Dataset::from_dense("bare", shop.n_users(), items, pairs).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        config(&["Popularity", "EASE", "text-kNN", "EASE + text", "RLMRec-Con", "Linear", "GLTA"]);
    config.run.controls = true;
    config.glta.llm.layers = None;
    config.glta.item_stage.train.epochs = 1;
    let llm = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    let language = LanguageModel::load(llm, &config.glta.llm, &Device::Cpu).unwrap();
    let experiment = Experiment::new(&bare, folder.path(), config).language(language);
    let record = experiment.run().unwrap();
    assert_eq!(record.systems(), ["Popularity", "EASE", "GLTA", "Linear"]);
    let skipped: Vec<&str> = record.skipped.iter().map(|s| s.system.as_str()).collect();
    assert_eq!(skipped, ["text-kNN", "EASE + text", "RLMRec-Con"]);
    assert_eq!(record.skipped[0].reason, "it needs texts, and 0 of 80 items have one");
    // The linear model uses no texts.
    assert_eq!(record.row("Linear", 2024).unwrap().settings["linear"]["text"], 0.0);
}

#[test]
fn what_was_left_out_of_the_data_is_recorded() {
    let twice =
        [("ann", "x"), ("ann", "x"), ("ann", "y"), ("ann", "z"), ("bob", "x"), ("bob", "y")];
    let rows = twice.map(|(user, item)| Interaction::new(user, item));
    let data = Dataset::from_interactions("twice", rows, vec![]).unwrap().k_core(1, 1);
    let folder = tempfile::tempdir().unwrap();
    let record = Experiment::new(&data, folder.path(), config(&["Popularity"])).run().unwrap();
    assert_eq!(&record.data, data.report());
    let text = std::fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["data"]["notes"][0]["kind"], "repeated_pairs");
    assert_eq!(json["data"]["filters"][0]["rule"], "k_core(1, 1)");
    assert_eq!(Record::load(folder.path()).unwrap().unwrap().data, record.data);
}

/// A text encoder whose vector contains every fifth byte of the text.
struct Letters(&'static str, f32);

impl TextEncoder for Letters {
    fn name(&self) -> &str {
        self.0
    }

    fn dim(&self) -> usize {
        4
    }

    fn encode(
        &self,
        texts: &[String],
        _: &mut dyn Progress<(usize, usize)>,
    ) -> Result<Array2<f32>, BoxError> {
        let letter =
            |text: &String, at| text.as_bytes().get(5 * at).copied().map_or(0.0, f32::from);
        Ok(Array2::from_shape_fn((texts.len(), 4), |(row, at)| {
            letter(&texts[row], at) + self.1 * at as f32
        }))
    }
}

#[test]
fn rows_of_other_data_or_encoders_are_not_mixed() {
    let mut config = config(&["text-kNN"]);
    config.glta.item_text.encoders = vec![ItemEncoder::TfIdf, ItemEncoder::Sentence];
    let folder = tempfile::tempdir().unwrap();
    let vectors = folder.path().join("v.npy");
    let write = |first: f32| {
        let rows = Array2::from_shape_fn((80, 3), |(i, j)| first + (i * (j + 2) % 7) as f32);
        rows.write_npy(std::fs::File::create(&vectors).unwrap()).unwrap();
        let shop = shop();
        let ids: Vec<&str> = shop.items().iter().map(|item| item.raw_id.as_str()).collect();
        std::fs::write(folder.path().join("v.npy.ids"), ids.join("\n")).unwrap();
    };
    write(1.0);
    config.glta.item_text.files = vec![vectors.clone()];
    let out = folder.path().join("out");
    let go = |data: &Dataset, encoder: Option<Letters>, only: &[&str]| {
        let mut config = config.clone();
        config.run.only = only.iter().map(|name| (*name).to_owned()).collect();
        let mut experiment = Experiment::new(data, &out, config).resume(true);
        if let Some(encoder) = encoder {
            experiment = experiment.text_encoder(Box::new(encoder));
        }
        experiment.run().map_err(|e| e.to_string())
    };
    let (shop, letters) = (shop(), || Some(Letters("letters", 0.0)));
    let record = go(&shop, letters(), &["text-kNN"]).unwrap();
    let read_by = &record.rows[0].settings["encoders"];
    assert_eq!(*read_by, serde_json::json!(["TF-IDF", "letters", "v.npy"]));

    let more = ["text-kNN", "EASE + text"];
    let other = go(&shop, Some(Letters("letters", 9.0)), &more).unwrap_err();
    assert!(other.contains("another text encoder (letters)"), "{other}");
    let other = go(&shop, Some(Letters("others", 0.0)), &more).unwrap_err();
    assert!(other.contains("another text encoder"), "{other}");
    let none = go(&shop, None, &more).unwrap_err();
    assert!(none.contains("another text encoder"), "{none}");
    // Rows without texts need no encoder.
    go(&shop, None, &["Popularity"]).unwrap();
    // Change an interaction, so that the numbers of users, items and interactions stay the same.
    let last = shop.n_items() as u32 - 1;
    let mirrored = shop.interactions().iter().map(|(user, item)| (user, last - item));
    let mirrored = Dataset::from_dense(shop.name(), 60, shop.items().to_vec(), mirrored).unwrap();
    assert_eq!(mirrored.stats(), shop.stats());
    let data = go(&mirrored, letters(), &more).unwrap_err();
    assert!(data.contains("other data of this size"), "{data}");
    write(2.0);
    let file = go(&shop, letters(), &more).unwrap_err();
    assert!(file.contains("other text vectors in") && file.contains("v.npy"), "{file}");
    write(1.0);
    let record = go(&shop, letters(), &more).unwrap();
    assert_eq!(record.systems(), ["text-kNN", "Popularity", "EASE + text"]);
}

#[test]
fn missing_encoders_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&["text-kNN", "Linear", "EASE"]);
    config.run.controls = true;
    assert_eq!(config.glta.item_text.encoders, [ItemEncoder::LanguageModel, ItemEncoder::TfIdf]);
    let record = run(folder.path(), &config).unwrap();
    for system in ["text-kNN", "Linear"] {
        let settings = &record.row(system, 2024).unwrap().settings;
        assert_eq!(settings["encoders"], serde_json::json!(["TF-IDF"]), "{system}");
        let left_out = &settings["encoders_left_out"];
        assert_eq!(*left_out, serde_json::json!(["language_model"]), "{system}");
    }

    // No preset contains a sentence encoder, so a configuration with one needs the encoder.
    let other = tempfile::tempdir().unwrap();
    config.glta.item_text.encoders.push(ItemEncoder::Sentence);
    let refused = run(other.path(), &config).unwrap_err().to_string();
    assert!(refused.contains("item_text.encoders") && refused.contains("text-kNN"), "{refused}");

    // Without any encoder the other systems run, and a resumed experiment records it again.
    let other = tempfile::tempdir().unwrap();
    config.glta.item_text.encoders.clear();
    let record = run(other.path(), &config).unwrap();
    assert_eq!(record.systems(), ["EASE", "Linear"]);
    let reason = record.skipped[0].reason.clone();
    assert!(reason.contains("none of the encoders"), "{reason}");
    config.run.only = vec!["EASE".into(), "Popularity".into()];
    let again = run(other.path(), &config).unwrap();
    assert_eq!((again.skipped.len(), &again.skipped[0].system[..]), (1, "text-kNN"));
}

#[test]
fn text_neighbours_do_not_depend_on_the_encoders_of_the_main_row() {
    // The main row of this preset uses texts only in its prompt.
    let folder = tempfile::tempdir().unwrap();
    let mut config = ExperimentConfig::new(Preset::Paper, Density::Sparse);
    config.run.only = ["text-kNN", "EASE + text"].map(String::from).to_vec();
    config.baselines.ease_l2 = vec![10.0];
    let record = run(folder.path(), &config).unwrap();
    assert_eq!(record.systems(), ["text-kNN", "EASE + text"]);
}
