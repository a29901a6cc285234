//! The rows of `run.llm_path`, with a small language model on a generated shop.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;

use glta_align::LanguageModel;
use glta_data::{Dataset, ShopConfig};
use glta_eval::{
    Density, Error, Event, Experiment, ExperimentConfig, LlmPathConfig, LlmPathCost, Preset, Record,
};
use glta_llm::Device;

fn shop() -> Dataset {
    Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() }).unwrap()
}

fn config(only: &[&str]) -> ExperimentConfig {
    let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
    config.run.llm_path = true;
    config.run.only = match only {
        [] => LlmPathConfig::systems(),
        only => only.iter().map(|name| (*name).to_owned()).collect(),
    };
    config.glta.llm.layers = None;
    (config.llm_path.candidates, config.llm_path.new_items) = (8, 4);
    config.llm_path.titles = 6;
    config.llm_path.ridge = vec![0.1, 1.0];
    config.llm_path.weights = vec![0.2, 0.8];
    config
}

fn language(config: &ExperimentConfig) -> LanguageModel {
    let llm = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    LanguageModel::load(llm, &config.glta.llm, &Device::Cpu).unwrap()
}

fn run(out: &Path, config: &ExperimentConfig) -> Record {
    let shop = shop();
    let experiment = Experiment::new(&shop, out, config.clone()).language(language(config));
    experiment.resume(true).run().unwrap()
}

/// Returns the stored results of the language model by file name.
fn files(out: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = std::fs::read_dir(out.join("seed-2024/llm-path")).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = folder
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn forms_and_controls_are_compared_and_resumed() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&[]));
    // Interrupt within the first form that runs prompts.
    let shop = shop();
    let mut seen = 0;
    let interrupted = Experiment::new(&shop, folder.path(), config.clone())
        .language(language(&config))
        .run_with(&mut |event: &Event<'_>| {
            let of_model = matches!(event, Event::Work { work, .. } if *work == "Linear + states");
            seen += usize::from(of_model);
            if seen == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    assert!(matches!(interrupted, Err(Error::Cancelled)));
    assert_eq!(files(folder.path()).len(), 1);
    let record = run(folder.path(), &config);
    assert_eq!(record.systems(), LlmPathConfig::systems());

    let other = tempfile::tempdir().unwrap();
    let whole = run(other.path(), &config);
    for row in &whole.rows {
        let resumed = record.row(&row.system, 2024).unwrap();
        assert_eq!((&row.metrics, &row.settings), (&resumed.metrics, &resumed.settings));
    }
    let kept = files(other.path());
    assert_eq!(files(folder.path()), kept);
    // Shown and all items, candidates and the catalogue, with pretrained and random weights.
    assert_eq!(kept.len(), 8);
    for row in &whole.rows[1..] {
        // A weight of 0 is always tried.
        let of_linear = whole.rows[0].metrics["valid_N@10"];
        assert!(row.metrics["valid_N@10"] >= of_linear - 1e-9, "{}", row.system);
        let weight = row.settings["weight"].as_f64().unwrap();
        assert!(weight == 0.0 || row.metrics["valid_N@10"] > of_linear, "{}", row.system);
    }

    let verdict = whole.llm_path_verdict().unwrap();
    assert_eq!(verdict.comparisons.len(), 7);
    let report = std::fs::read_to_string(other.path().join("llm-path.md")).unwrap();
    assert_eq!(report, verdict.report);
    assert!(report.contains("| Linear + states | Linear + mean vector |"), "{report}");
    for form in ["Linear + states", "Linear + likelihood"] {
        let mut of = verdict.comparisons.iter().filter(|c| c.system == form);
        let gains = of.clone().count() > 0 && of.all(|c| c.difference > 0.002);
        assert_eq!(verdict.gains.contains(&form.to_owned()), gains);
    }
}

#[test]
fn without_weights_the_rows_equal_the_linear_model() {
    let (folder, mut config) = (
        tempfile::tempdir().unwrap(),
        config(&["Linear", "Linear + mean vector", "Linear + neighbours"]),
    );
    config.llm_path.weights.clear();
    let record = run(folder.path(), &config);
    assert_eq!(record.rows.len(), 3);
    for row in &record.rows[1..] {
        assert_eq!(row.settings["weight"], 0.0);
        for (name, value) in &row.metrics {
            assert!((value - record.rows[0].metrics[name]).abs() < 1e-9, "{} {name}", row.system);
        }
    }
}

#[test]
fn the_cost_is_known_before() {
    let mut config = config(&[]);
    let (shop, language) = (shop(), language(&config));
    let cost = LlmPathCost::of(&shop, &config, &language).unwrap();
    // Two prompts per user with at least two items, with pretrained and random weights.
    assert!(cost.prompts > 2 * 40 && cost.prompts <= 4 * 40, "{cost}");
    assert!(cost.prompt_tokens > 10 * cost.prompts);
    assert!(cost.titles >= 2 * 40 * 8 && cost.title_tokens > cost.titles);
    let minutes = cost.minutes(1e-3);
    assert!((minutes - cost.flop / 6e10).abs() < 1e-9 * minutes);
    config.run.seeds = vec![2024, 2025];
    let twice = LlmPathCost::of(&shop, &config, &language).unwrap();
    assert_eq!((twice.prompts, twice.flop), (2 * cost.prompts, 2.0 * cost.flop));
    config.llm_path.batch_size = 0;
    assert!(config.validate().unwrap_err().to_string().contains("llm_path.batch_size"));
}
