//! The local form of the linear model: a fit, an added item, a list.
//!
//! ```text
//! cargo bench -p glta-linear --bench linear
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/generated.rs"]
mod generated;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use glta_data::Interactions;
use glta_linear::{Growing, LinearConfig, LinearModel, Solver, TextNeighbours, TextVectors};
use ndarray::s;

const ITEMS: usize = 5_000;

fn fit(train: &Interactions, text: &TextVectors) -> LinearModel {
    let config = LinearConfig {
        solvers: vec![Solver::Local],
        l2: vec![30.0],
        text: vec![3.0],
        text_neighbours: 64,
        ..LinearConfig::default()
    };
    let mut model = LinearModel::fit(train, None, Some(text), &config, 1).unwrap();
    model.set_weights(0.01, 0.003).unwrap();
    model
}

fn linear(c: &mut Criterion) {
    let made = generated::catalogue(ITEMS).unwrap();
    let (text, train) = (&made.text, generated::interactions(&made, ITEMS).unwrap());
    let mut group = c.benchmark_group(format!("{ITEMS} items, {} interactions", train.len()));
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("fit", |b| b.iter(|| fit(&train, text)));
    group.bench_function("text neighbours", |b| b.iter(|| TextNeighbours::find(text, 64)));

    let model = fit(&train, text);
    let baskets: Vec<Vec<u32>> = (0..train.n_users() as u32)
        .map(|user| train.items(user).iter().copied().take(50).collect())
        .filter(|basket: &Vec<u32>| basket.len() == 50)
        .collect();
    let mut next = (0..baskets.len()).cycle();
    group.bench_function("20 items for 50", |b| {
        b.iter(|| {
            let own = &baskets[next.next().unwrap()];
            let skip = |item: u32| own.binary_search(&item).is_ok();
            black_box(model.top_log_probabilities(own, 20, skip))
        });
    });

    let mut growing = Growing::new(model, &train, Some(text)).unwrap();
    let mut rows = (0..ITEMS).cycle();
    group.bench_function("add an item", |b| {
        b.iter_batched(
            || rows.next().unwrap(),
            |row| growing.add_items(Some(text.view().slice(s![row..row + 1, ..])), 1).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let mut users = 0..u32::MAX;
    group.bench_function("an interaction, folded", |b| {
        b.iter_batched(
            || users.next().unwrap(),
            |user| {
                let pair = (user % 10_000, user.wrapping_mul(2_654_435_761) % ITEMS as u32);
                growing.add_interactions(&[pair]).unwrap();
                growing.fold().unwrap()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, linear);
criterion_main!(benches);
