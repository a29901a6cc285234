//! The whole flow through the public API, from raw interactions and texts to a recommender, with a
//! small random language model.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use glta::align::{Backbone, ItemEncoder, ItemSlots, ItemVectors, Recommendation, TargetLoss};
use glta::comm::Alone;
use glta::data::ShopConfig;
use glta::gllm::Decoder;
use glta::linear::Solver;
use glta::llm::LlamaOptions;
use glta::metrics::{EvaluationConfig, Metric, Scorer, evaluate, evaluate_rankings};
use glta::prelude::*;
use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

mod tastes;
mod tiny_llm;

use tastes::{config, data, language};

/// Resumes the run in `dir`, or creates it.
fn open(dir: &Path, config: Config) -> Run {
    let open = if Run::exists(dir) { Run::resume } else { Run::create };
    open(dir, data(), config).unwrap()
}

fn answers(recommender: &Recommender) -> Vec<(u32, u32)> {
    let users: Vec<u32> = (0..recommender.users().len() as u32).collect();
    let bits = |r: Recommendation<'_>| (r.item, r.score.to_bits());
    recommender.recommend_batch(&users, 5).unwrap().into_iter().flatten().map(bits).collect()
}

/// Texts are optional: without them the linear model and the nodes use only interactions.
#[test]
fn a_catalogue_without_texts_trains_and_loads() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let mut data = data();
    data.items.iter_mut().for_each(|item| item.text.clear());
    let mut config = config(Preset::Full);
    config.texts.profile = false;
    config.texts.prediction = false;
    let dir = folder.path().join("run");
    let run = Run::create(&dir, data, config).unwrap();
    let (_, report) = run.fit(Some(&language)).unwrap();
    assert_eq!(report.linear.unwrap().text, 0.0);
    let loaded = Recommender::open_with(&dir, &language).unwrap();
    assert_eq!(loaded.recommend(3, 5).unwrap().len(), 5);
}

/// With another number of layers the model would answer, but incorrectly.
#[test]
fn a_model_with_other_layers_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let whole = language(&folder.path().join("llm"));
    let options = LlamaOptions { layers: Some(1), ..LlamaOptions::default() };
    let cut = LanguageModel::load(folder.path().join("llm"), &options, &Device::Cpu).unwrap();
    let mut config = config(Preset::Full);
    config.llm = options;
    (config.texts.profile, config.texts.prediction) = (false, false);
    let dir = folder.path().join("run");
    let open = || open(&dir, config.clone());
    let told = |error: Error| {
        let message = error.to_string();
        assert!(message.contains("llm.layers") && message.contains('2'), "{message}");
    };
    told(open().fit(Some(&whole)).unwrap_err());
    open().fit(Some(&cut)).unwrap();
    told(Recommender::open_with(&dir, &whole).unwrap_err());
    let recommender = Recommender::open_with(&dir, &cut).unwrap();
    assert_eq!(Config::of_run(&dir).unwrap(), config);
    // A list has at most as many items as remain.
    let left = 20 - recommender.history(0).unwrap().len();
    assert_eq!(recommender.recommend(0, usize::MAX).unwrap().len(), left);
}

/// Item-text alignment reaches an accuracy far above chance (a quarter).
#[test]
fn slots_learn_to_name_their_items() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let mut config = config(Preset::Full);
    config.item_stage.train.epochs = 40;
    config.item_stage.train.learning_rate = 5e-3;
    config.user_stage.train.epochs = 1;
    let run = Run::create(folder.path().join("run"), data(), config).unwrap();
    let (_, report) = run.fit(Some(&language)).unwrap();
    let accuracy = report.item_stage.unwrap().best().unwrap();
    assert!(accuracy > 0.6, "{accuracy}");
}

/// Only descriptions are shown, to a language model that has been trained.
#[test]
fn slots_behind_descriptions_learn_from_texts() {
    let folder = tempfile::tempdir().unwrap();
    let llm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/llm");
    let language = LanguageModel::load(llm, &LlamaOptions::default(), &Device::Cpu).unwrap();
    let mut config = config(Preset::Full);
    config.texts.profile = false;
    config.texts.prediction = false;
    config.item_stage.slots = ItemSlots::Description;
    config.item_stage.train.epochs = 20;
    // The first epochs vary.
    config.item_stage.train.patience = 0;
    config.item_stage.train.learning_rate = 5e-3;
    config.user_stage.train.epochs = 1;
    let shop = ShopConfig { users: 60, items: 80, ..ShopConfig::default() };
    let shop = Dataset::shop(&shop).unwrap();
    let split = Split::new(&shop, &SplitConfig::default()).unwrap();
    let data = RunData::new(&shop, &split, &TextConfig::default()).unwrap();
    let run = Run::create(folder.path().join("run"), data, config).unwrap();
    let (_, report) = run.fit(Some(&language)).unwrap();
    let accuracy = report.item_stage.unwrap().best().unwrap();
    assert!(accuracy > 0.6, "{accuracy}");
}

#[test]
fn both_presets_train_save_load_and_recommend() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    for (name, preset) in [("full", Preset::Full), ("paper", Preset::Paper)] {
        let dir = folder.path().join(name);
        let run = Run::create(&dir, data(), config(preset)).unwrap();
        let (trained, report) = run.fit(Some(&language)).unwrap();
        assert_eq!(report.item_stage.as_ref().unwrap().losses.len(), 2);
        assert_eq!(report.user_stage.as_ref().unwrap().losses.len(), 3);
        assert!(!dir.join("state.safetensors").exists());

        let loaded = Recommender::open_with(&dir, &language).unwrap();
        assert_eq!(answers(&trained), answers(&loaded), "{name}");
        let watched = report.validation().unwrap();
        assert_eq!(loaded.validation(&Alone).unwrap(), Some(watched), "{name}");
        let other = loaded.with_decoder(Decoder::MeanSlots).validation(&Alone).unwrap().unwrap();
        assert!((0.0..=1.0).contains(&other));
        let known = data();
        for user in 0..known.users.len() as u32 {
            let list = loaded.recommend(user, 20).unwrap();
            let seen = loaded.history(user).unwrap();
            assert_eq!(list.len(), 20 - seen.len());
            assert!(list.iter().all(|r| !seen.contains(&r.item)));
            assert!(list.iter().all(|r| r.score.is_finite()));
            assert_eq!(list[0].record, &known.items[list[0].item as usize]);
        }
        // Among some items: the whole list without the others.
        let among = loaded.recommend_among(&[5], &[2, 3, 11, 16, 19], 3).unwrap().pop().unwrap();
        let whole = loaded.recommend(5, 20).unwrap();
        let mut left = whole.iter().filter(|r| [2, 3, 11, 16, 19].contains(&r.item));
        if preset == Preset::Full {
            for r in &among {
                assert_eq!(Some(r.item), left.next().map(|r| r.item));
            }
        }
        assert!(!among.is_empty() && among.len() <= 3);
        assert!(loaded.recommend_among(&[5], &[20], 3).is_err());

        let list = loaded.recommend_for_items(&[3, 1, 3], 4).unwrap();
        assert_eq!(list.len(), 4);
        assert!(list.iter().all(|r| ![1, 3].contains(&r.item)));
        // A batch has the same answers as single calls.
        let people = [vec![3, 1], vec![15], vec![0, 1, 2, 3, 4, 5, 6, 7]];
        let batch = loaded.recommend_for_items_batch(&people, 4).unwrap();
        for (person, list) in people.iter().zip(batch) {
            let alone = loaded.recommend_for_items(person, 4).unwrap();
            for (a, b) in alone.iter().zip(&list) {
                assert!(a.item == b.item && (a.score - b.score).abs() < 1e-4);
            }
        }
    }
}

/// A run rejects other checkpoints and prompts.
#[test]
fn another_checkpoint_and_other_prompts_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let own = language(&folder.path().join("llm"));
    let changed = |name: &str, file: &str, change: fn(&mut Vec<u8>)| {
        let dir = folder.path().join(name);
        let language = language(&dir);
        assert_eq!(language.checkpoint_hash().unwrap(), own.checkpoint_hash().unwrap());
        let mut bytes = std::fs::read(dir.join(file)).unwrap();
        change(&mut bytes);
        std::fs::write(dir.join(file), bytes).unwrap();
        tastes::language(&dir)
    };
    let others = [
        changed("weights", "model.safetensors", |bytes| {
            // Changes the low bits of the last number.
            let at = bytes.len() - 2;
            bytes[at] ^= 1;
        }),
        changed("tokenizer", "tokenizer.json", |bytes| {
            let mut json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            let words = &mut json["model"]["vocab"];
            let a = words["a"].take();
            let b = std::mem::replace(&mut words["b"], a);
            words["a"] = b;
            *bytes = serde_json::to_vec(&json).unwrap();
        }),
    ];
    let mut prompts = own.clone();
    prompts.templates.user.insert(0, '!');
    let mut unusable = own.clone();
    unusable.templates.user.clear();

    for backbone in [Backbone::Llm, Backbone::RandomLlm] {
        let mut config = config(Preset::Full);
        config.backbone = backbone;
        config.model.mix = vec![1.0];
        config.item_stage.enabled = false;
        config.user_stage.train.epochs = 1;
        (config.texts.profile, config.texts.prediction) = (false, false);
        let dir = folder.path().join(format!("{backbone:?}"));
        let resumed = || open(&dir, config.clone());
        assert!(matches!(resumed().fit(Some(&unusable)), Err(Error::Template { .. })));
        let stop = &mut |_: &Event| ControlFlow::Break(());
        assert!(matches!(resumed().fit_with(Some(&own), stop), Err(Error::Cancelled)));
        let refused = |error: Error, name: &str| {
            let message = error.to_string();
            assert!(matches!(error, Error::OtherCheckpoint { .. }), "{message}");
            let hash = &own.checkpoint_hash().unwrap()[..12];
            assert!(message.contains(&format!("llm ({hash})")), "{message}");
            assert!(message.contains(&format!("{name} (")), "{message}");
        };
        for other in &others {
            refused(resumed().fit(Some(other)).unwrap_err(), &other.name);
        }
        let message = resumed().fit(Some(&prompts)).unwrap_err().to_string();
        assert!(message.contains("prompts.toml"), "{message}");

        let (trained, _) = resumed().fit(Some(&own)).unwrap();
        for other in &others {
            refused(resumed().fit(Some(other)).unwrap_err(), &other.name);
            refused(Recommender::open_with(&dir, other).unwrap_err(), &other.name);
        }
        // The recorded prompts are used, whatever the prompts of the model are.
        let opened = Recommender::open_with(&dir, &prompts).unwrap();
        assert_eq!(answers(&opened), answers(&trained));
        assert!(matches!(Recommender::open(&dir), Err(Error::NoLlm)));
        // The same files with another name are not another checkpoint.
        let mut renamed = own.clone();
        renamed.name = "owner/name".into();
        Recommender::open_with(&dir, &renamed).unwrap();
    }

    // Parts that validation leaves out are not needed for answers.
    let mut config = config(Preset::Full);
    config.model.mix = vec![0.0];
    config.user_stage.train.epochs = 1;
    let dir = folder.path().join("left out");
    let (trained, _) = open(&dir, config).fit(Some(&own)).unwrap();
    assert_eq!(answers(&Recommender::open(&dir).unwrap()), answers(&trained));
    assert!(Recommender::open_with(&dir, &others[0]).is_err());
}

/// The default preset: no graph, no stages, and no language model after the texts are encoded.
#[test]
fn the_linear_model_alone() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let dir = folder.path().join("run");
    let config = config(Preset::Default);
    let run = Run::create(&dir, data(), config.clone()).unwrap();
    let mut events = Vec::new();
    let (trained, report) = run
        .fit_with(Some(&language), &mut |event: &Event| {
            events.push(event.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    let closed = |e: &Event| matches!(e, Event::TextVectors { .. } | Event::Linear { .. });
    assert!(!events.is_empty() && events.iter().all(closed), "{events:?}");
    assert!(report.item_stage.is_none() && report.user_stage.is_none());
    assert_eq!(report.mix.as_ref().unwrap().factor, 0.0);
    for name in ["nodes.safetensors", "model.safetensors", "texts.jsonl", "state.safetensors"] {
        assert!(!dir.join(name).exists(), "{name}");
    }
    let loaded = Recommender::open(&dir).unwrap();
    assert_eq!(answers(&trained), answers(&loaded));
    assert_eq!(loaded.validation(&Alone).unwrap(), report.validation());
    assert_eq!(loaded.recommend_for_items(&[3, 1], 4).unwrap().len(), 4);
    let (again, same) = open(&dir, config.clone()).fit(None).unwrap();
    assert_eq!((answers(&again), &same), (answers(&trained), &report));
    let users: Vec<u32> = (0..loaded.users().len() as u32).collect();
    let mut scores = Array2::zeros((users.len(), 20));
    loaded.score(&users, scores.view_mut()).unwrap();
    for (user, row) in users.iter().zip(scores.rows()) {
        let seen = loaded.history(*user).unwrap();
        let best = &loaded.top_k(&[*user], 1, &[seen]).unwrap()[0][0];
        assert!((row[best.item as usize] - best.score).abs() < 1e-5);
    }

    // The whole method gives the same lists if validation leaves out the prompt path.
    let mut whole = tastes::config(Preset::Full);
    whole.model.mix = vec![0.0];
    whole.item_stage.enabled = false;
    whole.user_stage.train.epochs = 0;
    (whole.texts.profile, whole.texts.prediction) = (false, false);
    let dir = folder.path().join("whole");
    let (whole, _) = Run::create(&dir, data(), whole).unwrap().fit(Some(&language)).unwrap();
    assert_eq!(answers(&whole), answers(&trained));

    // Given vectors need no language model; other encoders do.
    let dir = folder.path().join("given");
    let run = Run::create(&dir, data(), config.clone()).unwrap();
    assert!(matches!(run.fit(None), Err(Error::NoLlm)));
    let run = Run::resume(&dir, data(), config.clone()).unwrap();
    let vectors = Array2::from_shape_fn((20, 3), |(r, c)| ((r * (c + 2)) % 7) as f32);
    run.set_item_vectors(&[ItemVectors::new("given", vectors)]).unwrap();
    let (given, _) = run.fit(None).unwrap();
    // A run that was fitted without a language model opens with any.
    let opened = Recommender::open_with(&dir, &language).unwrap();
    assert_eq!(answers(&opened), answers(&given));

    // If the language model is not an encoder, none is needed.
    let mut words = config.clone();
    words.item_text.encoders = vec![ItemEncoder::TfIdf];
    let dir = folder.path().join("words");
    let mut told_apart = data();
    for (n, item) in told_apart.items.iter_mut().enumerate() {
        item.text = format!("A {} film of {n}", if n < 10 { "silent" } else { "musical" });
    }
    let (trained, _) = Run::create(&dir, told_apart, words).unwrap().fit(None).unwrap();
    assert!(dir.join("tf_idf.safetensors").exists());
    assert_eq!(answers(&Recommender::open(&dir).unwrap()), answers(&trained));
    let mut sentences = config.clone();
    sentences.item_text.encoders = vec![ItemEncoder::Sentence];
    let run = Run::create(folder.path().join("sentences"), data(), sentences).unwrap();
    assert!(run.fit(None).unwrap_err().to_string().contains("no sentence encoder"));

    // The dense form has a limit, and the report says why it was left out.
    let mut small = config;
    small.linear.max_items = 19;
    let dir = folder.path().join("small");
    let run = Run::create(dir, data(), small.clone()).unwrap();
    let chosen = run.fit(Some(&language)).unwrap().1.linear.unwrap();
    assert!(chosen.left_out.unwrap().contains("20 items"));
    small.linear.solvers = vec![Solver::Dense];
    let message = Run::create(folder.path().join("x"), data(), small).unwrap_err().to_string();
    assert!(message.contains("`max_items`") && message.contains("20 items"), "{message}");
}

/// `evaluate` uses the lists of `recommend_batch` and gives the figure of the training.
#[test]
fn a_recommender_is_evaluated_like_any_scorer() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let split = tastes::split().1;
    let mut autoregressive = config(Preset::Full);
    autoregressive.model.autoregressive = true;
    autoregressive.model.slots = 3;
    autoregressive.user_stage.loss = TargetLoss::SampledSlots;
    for (name, config) in [("paper", config(Preset::Paper)), ("ar", autoregressive)] {
        let run = Run::create(folder.path().join(name), data(), config).unwrap();
        let (trained, report) = run.fit(Some(&language)).unwrap();
        for decoder in [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots] {
            let recommender = trained.with_decoder(decoder);
            let users: Vec<u32> = (0..recommender.users().len() as u32).collect();
            // From the training items alone, unlike `recommend_batch`.
            let seen: Vec<Vec<u32>> =
                users.iter().map(|&user| recommender.history(user).unwrap()).collect();
            let lists = recommender.top_k(&users, 10, &seen).unwrap();
            let items = lists.iter().map(|l| l.iter().map(|r| r.item).collect());
            let rankings: Vec<(u32, Vec<u32>)> = users.iter().copied().zip(items).collect();
            let settings = EvaluationConfig { ks: vec![5, 10], ..EvaluationConfig::default() };
            let masked = [&split.train, &split.valid];
            let got = evaluate(&recommender, &split.test, &masked, &settings).unwrap();
            assert_eq!(got, evaluate_rankings(&rankings, &split.test, &[5, 10]).unwrap());
            let watched = evaluate(&recommender, &split.valid, &[&split.train], &settings);
            let watched = watched.unwrap().get(Metric::Ndcg, 10);
            assert_eq!(watched, recommender.validation(&Alone).unwrap(), "{name} {decoder:?}");

            let mut scores = Array2::zeros((users.len(), 20));
            recommender.score(&users, scores.view_mut()).unwrap();
            for row in scores.rows() {
                let total: f32 = row.iter().map(|score| score.exp()).sum();
                // The means of log-probabilities are not a distribution, but their sum is below
                // one.
                assert!(total < 1.0 + 1e-4, "{total}");
            }
            let first_alone = name == "ar" || decoder == Decoder::FirstLogit;
            for (list, row) in lists.iter().zip(scores.rows()) {
                if first_alone {
                    let total: f32 = row.iter().map(|score| score.exp()).sum();
                    assert!((total - 1.0).abs() < 1e-4, "{total}");
                    assert!((row[list[0].item as usize] - list[0].score).abs() < 1e-4);
                } else if decoder == Decoder::MeanSlots {
                    for r in list {
                        assert!((row[r.item as usize] - r.score).abs() < 1e-4);
                    }
                }
            }
        }
        assert_eq!(report.validation(), trained.validation(&Alone).unwrap());
        for (id, item) in (0..).zip(trained.items()) {
            assert_eq!(trained.item(&item.raw_id), Some(id));
        }
        assert_eq!(trained.item("u7"), None);
        let mut few = Array2::zeros((1, 3));
        assert!(trained.score(&[0], few.view_mut()).is_err());
        assert!(trained.score(&[99], Array2::zeros((1, 20)).view_mut()).is_err());
    }
}

/// Runs that differ only in stage 3 can share stage 2.
#[test]
fn stage_2_of_another_run_gives_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let at = |name: &str| folder.path().join(name);
    let first = config(Preset::Paper);
    let mut second = first.clone();
    (second.texts.profile, second.texts.prediction) = (false, false);
    let run = Run::create(at("first"), data(), first).unwrap();
    run.fit(Some(&language)).unwrap();

    let whole = Run::create(at("whole"), data(), second.clone()).unwrap();
    let (whole, whole_report) = whole.fit(Some(&language)).unwrap();
    let taken = Run::create(at("taken"), data(), second).unwrap();
    assert!(taken.copy_item_stage(at("nowhere")).is_err());
    taken.copy_item_stage(at("first")).unwrap();
    let mut item_steps = 0;
    let (taken, report) = taken
        .fit_with(Some(&language), &mut |event: &Event| {
            item_steps += usize::from(matches!(event, Event::Step { stage: "item", .. }));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((report, answers(&taken)), (whole_report, answers(&whole)));
    assert_eq!(item_steps, 0);
}

#[test]
fn no_held_out_item_reaches_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let dir = folder.path().join("run");
    let run = Run::create(&dir, data(), config(Preset::Paper)).unwrap();
    run.fit(Some(&language)).unwrap();
    let known = data();
    let texts = std::fs::read_to_string(dir.join("texts.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        texts.lines().skip(1).map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), known.users.len());
    for line in lines {
        let user = line["user"].as_u64().unwrap() as u32;
        for item in line["items"].as_array().unwrap() {
            assert!(known.train.contains(user, item.as_u64().unwrap() as u32));
        }
    }
}

#[test]
fn the_control_without_a_language_model_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { backbone: Backbone::None, ..config(Preset::Full) };
    let run = Run::create(folder.path(), data(), config).unwrap();
    let (trained, report) = run.fit(None).unwrap();
    assert!(report.item_stage.is_none());
    let loaded = Recommender::open(folder.path()).unwrap();
    assert_eq!(answers(&trained), answers(&loaded));
}

#[test]
fn a_cancelled_run_resumes_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let whole = Run::create(folder.path().join("whole"), data(), config(Preset::Full));
    let mut events = 0;
    let (whole, report) = whole
        .unwrap()
        .fit_with(Some(&language), &mut |_: &Event| {
            events += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    for cut in (1..events).step_by(7) {
        let dir = folder.path().join(format!("cut-{cut}"));
        let run = Run::create(&dir, data(), config(Preset::Full)).unwrap();
        let mut seen = 0;
        let error = run
            .fit_with(Some(&language), &mut |_: &Event| {
                seen += 1;
                if seen == cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        let run = Run::resume(&dir, data(), config(Preset::Full)).unwrap();
        let (resumed, mut again) = run.fit(Some(&language)).unwrap();
        again.linear_seconds = report.linear_seconds;
        assert_eq!(again, report, "cut at event {cut}");
        assert_eq!(answers(&resumed), answers(&whole), "cut at event {cut}");
    }
}

/// The child process of the next test, which trains in the folder of the variable.
#[test]
#[ignore = "runs in a child process"]
fn child_process_to_kill() {
    let dir = PathBuf::from(std::env::var_os("GLTA_TEST_CHILD").unwrap());
    let language = language(&dir.with_file_name("llm"));
    open(&dir, config(Preset::Full)).fit(Some(&language)).unwrap();
}

/// `GLTA_TEST_KILLS=50 cargo test --test pipeline killed` for a longer run.
#[test]
fn a_killed_run_resumes_to_the_same_numbers() {
    let wanted = std::env::var("GLTA_TEST_KILLS").map_or(8, |n| n.parse::<usize>().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let language = language(&folder.path().join("llm"));
    let started = Instant::now();
    let whole = Run::create(folder.path().join("whole"), data(), config(Preset::Full));
    let (whole, report) = whole.unwrap().fit(Some(&language)).unwrap();
    let longest = started.elapsed().as_millis() as u64;

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut kills, mut runs) = (0, 0);
    while kills < wanted {
        let dir = folder.path().join(format!("killed-{runs}"));
        runs += 1;
        loop {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "child_process_to_kill"])
                .env("GLTA_TEST_CHILD", &dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(0..=longest)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "run {runs} after {kills} kills");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if kills == wanted {
                break;
            }
        }
        let (resumed, mut again) = open(&dir, config(Preset::Full)).fit(Some(&language)).unwrap();
        again.linear_seconds = report.linear_seconds;
        assert_eq!(again, report, "run {runs} after {kills} kills");
        assert_eq!(answers(&resumed), answers(&whole), "run {runs} after {kills} kills");
        let left = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".writing")));
    }
}

#[test]
fn misuse_is_an_error_and_loses_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let mut control = Config { backbone: Backbone::None, ..config(Preset::Full) };
    // So that nodes and model are loaded.
    control.model.mix = vec![1.0];
    Run::create(&dir, data(), control.clone()).unwrap().fit(None).unwrap();

    let message = |result: Result<Run, Error>| result.unwrap_err().to_string();
    assert!(message(Run::create(&dir, data(), control.clone())).contains("already holds"));
    let nothing = folder.path().join("nothing");
    assert!(!Run::exists(&nothing) && Run::exists(&dir));
    assert!(message(Run::resume(&nothing, data(), control.clone())).contains("contains no run"));
    assert!(!nothing.exists(), "a failed resume makes no folder");
    let other = Config { seed: 1, ..control.clone() };
    assert!(message(Run::resume(&dir, data(), other)).contains("another configuration"));
    let mut changed = data();
    changed.items[0].text.push('!');
    assert!(message(Run::resume(&dir, changed, control.clone())).contains("other data"));
    let needs_llm = Run::create(folder.path().join("x"), data(), config(Preset::Full));
    assert!(needs_llm.unwrap().fit(None).unwrap_err().to_string().contains("none was given"));

    // A file instead of the folder, and a place without write permission.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(message(Run::create(&file, data(), control.clone())).contains("file"));
    if cfg!(target_os = "linux") {
        let place = Path::new("/proc/glta");
        assert!(message(Run::create(place, data(), control)).contains("/proc/glta"));
    }

    let recommender = Recommender::open(&dir).unwrap();
    assert!(recommender.recommend(99, 3).unwrap_err().to_string().contains("user 99"));
    let message = recommender.recommend_for_items(&[20], 3).unwrap_err().to_string();
    assert!(message.contains("item 20"), "{message}");
    // A user without items gets the most popular items.
    let popular = recommender.recommend_for_items(&[], 3).unwrap();
    let degrees = data().train.item_degrees();
    let most = degrees.iter().copied().max().unwrap();
    assert_eq!((popular.len(), degrees[popular[0].item as usize]), (3, most));

    // An error of a damaged file names the file.
    for name in [
        "config.toml",
        "nodes.safetensors",
        "model.safetensors",
        "items.jsonl",
        "users.jsonl",
        "history.json",
        "linear.safetensors",
    ] {
        let path = dir.join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let message = Recommender::open(&dir).unwrap_err().to_string();
        assert!(message.contains(name), "{name}: {message}");
        std::fs::write(&path, whole).unwrap();
    }
    Recommender::open(&dir).unwrap();
}

#[test]
#[ignore = "needs the right to mount"]
fn a_full_disk_is_an_error_and_keeps_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=48k", "tmpfs"];
    let mounted = Command::new("mount").args(mount).arg(&disk).status().unwrap();
    assert!(mounted.success());
    let control = Config { backbone: Backbone::None, ..config(Preset::Full) };
    let run = Run::create(disk.join("run"), data(), control.clone()).unwrap();
    let error = run.fit(None).unwrap_err();
    let saved = std::fs::read_to_string(disk.join("run/users.jsonl")).unwrap();
    let unmounted = Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    assert!(error.to_string().contains("run"), "{error}");
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error} {source}").contains("No space"), "{error}: {source}");
    assert_eq!(saved.lines().count(), data().users.len());
}

#[test]
fn public_types_can_be_shared_and_sent() {
    use glta::{
        align, baselines, comm, data, gllm, graph, kernels, linear, llm, metrics, projector, shared,
    };
    macro_rules! send_and_sync {
        ($($type:ty),* $(,)?) => {{
            fn check<T: Send + Sync>() {}
            $(check::<$type>();)*
        }};
    }
    send_and_sync![
        align::Config,
        align::Error,
        align::FitReport,
        align::LanguageModel,
        align::Mix,
        align::Recommendation,
        align::Recommender,
        align::Run,
        align::RunData,
        align::StageHistory,
        align::Templates,
        align::UserTexts,
        baselines::Contrastive,
        baselines::Error,
        comm::Metered,
        comm::InProcess,
        comm::Error,
        data::Dataset,
        data::Error,
        data::Interactions,
        data::Split,
        data::Stats,
        gllm::Error,
        gllm::GllmHead,
        gllm::GraphResidual,
        graph::Adjacency,
        graph::Error,
        graph::LightGcn,
        graph::NodeEmbeddings,
        graph::Trained,
        kernels::Arena,
        kernels::Cuda,
        kernels::Error,
        kernels::Heads,
        kernels::Host,
        kernels::Matrix,
        kernels::Sequences,
        linear::Ease,
        linear::EaseText,
        linear::Error,
        linear::LinearConfig,
        linear::LinearModel,
        linear::LinearReport,
        linear::Popularity,
        linear::TextKnn,
        llm::Error,
        llm::KvCache,
        llm::Llama,
        llm::Prefix,
        llm::SentenceEncoder,
        llm::Tokenizer,
        metrics::Buckets,
        metrics::DotScorer,
        metrics::Error,
        metrics::Paired,
        metrics::Report,
        projector::Error,
        projector::Projector,
        projector::SoftBatch,
        shared::Error,
        shared::Grid,
    ];
}
