//! Speed of the two slow parts of user-item alignment: the profiles that the language model writes,
//! and a training step with 32 users. `benches/peers/alignment_torch.py` runs this bench, and then
//! the same work in PyTorch.
//!
//! `cargo bench -p glta --bench alignment -- --llm FOLDER [--layers 4,30] [--profiles 1000]
//! [--out FILE]`. The customers, their purchases and the texts of the articles are generated. FILE
//! receives the prompts of the profiles and the sizes of the steps.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "support/measured.rs"]
mod measured;
#[path = "support/plain_product.rs"]
mod plain_product;
#[path = "support/spans.rs"]
mod spans;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use glta::align::{UserTexts, read_texts};
use glta::data::ShopConfig;
use glta::llm::LlamaConfig;
use glta::prelude::*;
use measured::{argument, peak_mb};
use plain_product::plain_product;
use serde_json::{Value, json};
use spans::Clock;

/// Steps before the measured ones, and measured steps.
const WARM_UP: u64 = 2;
const STEPS: u64 = 8;
const BATCH: usize = 32;

/// Returns the complete form of the paper, with profiles and without predictions.
fn config(layers: usize) -> Config {
    let mut config = Config::preset(Preset::Complete, Density::Sparse);
    config.llm.layers = Some(layers);
    config.graph.epochs = 20;
    config.texts.prediction = false;
    config.item_stage.enabled = false;
    config.user_stage.train.batch_size = BATCH;
    // Enough steps also with few customers.
    config.user_stage.train.epochs = 20;
    config.user_stage.train.eval_every = 20;
    config
}

/// Returns the tokens per second of a forward and a backward pass of which only the products of
/// the layers remain, at the f32 rate of the crate gemm.
fn limit(config: &LlamaConfig, layers: usize, rows: usize) -> f64 {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let query = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let fused = [(query + 2 * keys, hidden), (hidden, query), (2 * inner, hidden), (hidden, inner)];
    let seconds: f64 = fused
        .iter()
        .map(|&(n, k)| {
            let (a, b, mut c) = (vec![1.0; rows * k], vec![1.0; n * k], vec![0.0; rows * n]);
            let run = |_| {
                let start = Instant::now();
                plain_product(&a, &b, &mut c, k);
                start.elapsed().as_secs_f64()
            };
            (0..5).map(run).fold(f64::INFINITY, f64::min)
        })
        .sum();
    rows as f64 / (2.0 * layers as f64 * seconds)
}

/// Returns the prompts for the profiles of the users.
fn prompts(
    language: &LanguageModel,
    data: &RunData,
    texts: &BTreeMap<u32, UserTexts>,
    words: usize,
) -> Vec<String> {
    let of = |texts: &UserTexts| {
        let items = texts.items.iter().map(|&item| data.items[item as usize].text.as_str());
        let items = items.collect::<Vec<_>>().join(&language.templates.separator);
        let template = &language.templates.profile;
        template.replace("{K}", &words.to_string()).replace("{DESCRIPTIONS}", &items)
    };
    texts.values().map(of).collect()
}

fn main() {
    let Some(llm) = argument("--llm") else {
        println!("needs --llm with the folder of a checkpoint; nothing measured");
        return;
    };
    let profiles = argument("--profiles").map_or(1000, |n| n.parse().expect("--profiles"));
    let layers = argument("--layers").unwrap_or_else(|| "4,30".into());
    let layers: Vec<usize> = layers.split(',').map(|n| n.parse().expect("--layers")).collect();
    let shop = ShopConfig { users: profiles, items: 3000, ..ShopConfig::default() };
    let dataset = Dataset::shop(&shop).unwrap();
    let split = Split::new(&dataset, &SplitConfig::default()).unwrap();
    let data = RunData::new(&dataset, &split, &TextConfig::default()).unwrap();
    let clock = Clock::default();
    tracing::subscriber::set_global_default(clock.clone()).unwrap();

    let mut result = BTreeMap::<&str, Value>::new();
    let mut steps = Vec::new();
    let mut written: Option<tempfile::TempDir> = None;
    for &layers in &layers {
        let config = config(layers);
        let language = LanguageModel::load(&llm, &config.llm, &Device::Cpu).expect("checkpoint");
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), data.clone(), config.clone()).unwrap();
        if let Some(written) = &written {
            run.copy_texts(written.path()).unwrap();
        }
        let (mut texts, mut at) = ((None, 0.0), Vec::new());
        let outcome = run.fit_with(Some(&language), &mut |event: &Event| {
            match event {
                Event::Texts { done: 0, .. } => texts.0 = Some(Instant::now()),
                Event::Texts { done, total } if done == total => {
                    texts.1 = texts.0.map_or(0.0, |start: Instant| start.elapsed().as_secs_f64());
                }
                Event::Step { step, .. } => {
                    at.push(Instant::now());
                    if *step == WARM_UP + STEPS {
                        return ControlFlow::Break(());
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        assert!(outcome.is_err(), "the run is stopped after the measured steps");
        if written.is_none() {
            let read = read_texts(folder.path().join("texts.jsonl")).unwrap();
            let prompts = prompts(&language, &data, &read, config.texts.words);
            let ids =
                prompts.iter().map(|text| language.tokenizer.encode(text, true).unwrap().len());
            let tokens: usize = ids.sum();
            println!(
                "{} profiles of at most {} tokens, prompts of {tokens} tokens: {:.1} s",
                read.len(),
                config.texts.max_tokens,
                texts.1
            );
            result.insert(
                "profiles",
                json!({
                    "prompts": prompts, "max_tokens": config.texts.max_tokens, "seconds": texts.1,
                }),
            );
        }
        let mut seconds: Vec<f64> = at[WARM_UP as usize - 1..]
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let parts = clock.take_seconds();
        let sizes = clock.sizes();
        let [rows, own, prefix] = ["rows", "tokens", "prefix"].map(|name| sizes[name] as usize);
        let rate = own as f64 / median;
        let limit = limit(language.llama.config(), layers, own);
        println!(
            "a step with {layers} layers ({rows} prompts, {own} tokens after a common prefix of \
             {prefix}): {median:.3} s ({:.3} to {:.3}), {rate:.0} tokens/s, {:.0} % of the f32 \
             products alone ({limit:.0})",
            seconds[0],
            seconds[seconds.len() - 1],
            100.0 * rate / limit
        );
        for (path, part) in &parts {
            if let Some(name) = path.strip_prefix("step/") {
                println!("    {name}: {:.0} %", 100.0 * part / parts["step"]);
            }
        }
        steps.push(json!({
            "layers": layers, "rows": rows, "tokens": own, "prefix": prefix, "seconds": median,
            "items": data.items.len(), "slots": config.model.slots, "graph": config.graph.dim,
            "share_of_products": rate / limit,
        }));
        written.get_or_insert(folder);
    }
    println!("peak memory: {:.0} MB", peak_mb());
    result.insert("steps", steps.into());
    result.insert("peak_mb", peak_mb().into());
    if let Some(out) = argument("--out") {
        std::fs::write(Path::new(&out), serde_json::to_string(&result).unwrap()).unwrap();
    }
}
