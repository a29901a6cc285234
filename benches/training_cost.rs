//! Time of an epoch by part, from the debug spans of the crates: one epoch of each alignment stage,
//! and recommendations.
//!
//! `cargo bench -p glta --bench training_cost -- DATA LLM`, with the folder or archive of MovieLens
//! 100K and the folder of a checkpoint.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "support/spans.rs"]
mod spans;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use glta::data::readers;
use glta::llm::{ForwardOptions, LlamaOptions};
use glta::prelude::*;
use spans::Clock;

/// Prints a table: seconds under `root`, by part, and the remainder.
fn table(title: &str, root: &str, seconds: &BTreeMap<String, f64>) {
    let whole = seconds.get(root).copied().unwrap_or(0.0);
    println!("{title}: {whole:.2} s");
    let mut rest = whole;
    for (path, part) in seconds {
        if let Some(name) = path.strip_prefix(&format!("{root}/")).filter(|n| !n.contains('/')) {
            println!("    {name:<16} {part:>8.2} s {:>6.1} %", 100.0 * part / whole);
            rest -= part;
        }
    }
    println!("    {:<16} {rest:>8.2} s {:>6.1} %", "everything else", 100.0 * rest / whole);
}

/// Seconds of forward and backward for `rows` rows of `own` tokens after `prefix` tokens: with the
/// prefix computed once, and with the prefix in each row.
fn prefix_reuse(language: &LanguageModel, rows: usize, own: usize, prefix: usize) -> [f64; 2] {
    let llama = &language.llama;
    let kept = llama.prefix(&vec![5; prefix]).unwrap();
    [(own, Some(&kept)), (own + prefix, None)].map(|(seq, prefix)| {
        let shape = (rows, seq, llama.config().hidden_size);
        let x = Var::from_tensor(&Tensor::randn(0f32, 0.1, shape, &Device::Cpu).unwrap()).unwrap();
        let options = ForwardOptions { prefix, recompute: false };
        let run = |_| {
            let start = Instant::now();
            let hidden = llama.hidden_states(&x, &vec![seq; rows], &options).unwrap();
            drop(hidden.sum_all().unwrap().backward().unwrap());
            start.elapsed().as_secs_f64()
        };
        (0..3).map(run).fold(f64::INFINITY, f64::min)
    })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let [data, llm] = words.as_slice() else {
        println!("needs the paths of MovieLens 100K and of a checkpoint; nothing measured");
        return;
    };
    let dataset = readers::movielens(data).expect("MovieLens 100K");
    let split = Split::new(&dataset, &SplitConfig::default()).unwrap();
    let run_data = RunData::new(&dataset, &split, &TextConfig::default()).unwrap();
    let users = run_data.users.len();
    let options = LlamaOptions { layers: Some(4), ..LlamaOptions::default() };
    let language = LanguageModel::load(llm, &options, &Device::Cpu).expect("checkpoint");
    let clock = Clock::default();
    tracing::subscriber::set_global_default(clock.clone()).unwrap();
    let take = || clock.take_seconds();
    // As in the MovieLens example, with item tokens in the prompt and without.
    for history in [0, 5] {
        let mut config = Config::preset(Preset::Full, Density::Dense);
        config.graph.epochs = 20;
        config.model.history = history;
        config.item_stage.train.epochs = 1;
        config.user_stage.train.epochs = 1;
        let folder = tempfile::tempdir().unwrap();
        let run = Run::create(folder.path(), run_data.clone(), config).unwrap();
        println!("\n== {history} item tokens in a user's prompt");
        let (recommender, _) = run
            .fit_with(Some(&language), &mut |event: &Event| {
                match event {
                    // Earlier spans belong to no stage.
                    Event::Linear { .. } | Event::TextVectors { .. } => drop(take()),
                    Event::Evaluated { stage, .. } => {
                        let seconds = take();
                        table(&format!("{stage} stage, one epoch"), "step", &seconds);
                        table(&format!("{stage} stage, one evaluation"), "evaluation", &seconds);
                        let sizes = clock.sizes();
                        println!("    last forward pass: {sizes:?}");
                        if *stage == "item" && history == 0 || *stage == "user" {
                            let [rows, tokens, prefix] =
                                ["rows", "tokens", "prefix"].map(|n| sizes[n] as usize);
                            let [with, without] =
                                prefix_reuse(&language, rows, tokens.div_ceil(rows), prefix);
                            let saved = 100.0 * (1.0 - with / without);
                            println!(
                                "    forward and backward {:.0} ms with the prefix reused, {:.0} \
                                without: {saved:.0} % less",
                                1e3 * with,
                                1e3 * without
                            );
                        }
                        drop(take());
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        take();
        let start = Instant::now();
        let everyone: Vec<u32> = (0..users as u32).collect();
        recommender.recommend_batch(&everyone, 20).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!("recommending: {:.0} users/s", users as f64 / seconds);
        for (path, part) in take() {
            println!("    {path:<16} {part:>8.2} s {:>6.1} %", 100.0 * part / seconds);
        }
    }
}
