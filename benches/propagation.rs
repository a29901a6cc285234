//! Sparse products only: one forward pass of three layers over a graph with the size and skew of
//! MovieLens-1M, with 64 columns.
//!
//! Limit: a minimal kernel for this purpose took 2 × 17.7 ms of CPU time for the six products of a
//! training step. Three of them should take less than that on one thread.

#![allow(clippy::expect_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use glta_data::Interactions;
use glta_graph::Adjacency;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;

/// 6,040 users, 3,706 items and about 800,000 interactions, with a power law on both sides.
fn movielens_like() -> Interactions {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (users, items) = (6040u32, 3706u32);
    // The cube of a uniform number makes low ids frequent.
    let mut skewed = |n: u32, power: i32| (rng.random::<f64>().powi(power) * f64::from(n)) as u32;
    let pairs: Vec<(u32, u32)> =
        (0..1_250_000).map(|_| (skewed(users, 2), skewed(items, 3))).collect();
    Interactions::from_pairs(users as usize, items as usize, pairs).expect("ids are in range")
}

fn propagation(criterion: &mut Criterion) {
    let train = movielens_like();
    let graph = Adjacency::new(&train).expect("the graph is small");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut matrix = |n| Array2::from_shape_fn((n, 64), |_| rng.random_range(-1.0f32..1.0));
    let (users, items) = (matrix(train.n_users()), matrix(train.n_items()));
    let mut group = criterion.benchmark_group("propagation");
    // Rows gathered: every edge in both directions, three times.
    group.throughput(Throughput::Elements(6 * train.len() as u64));
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        group.bench_function(format!("three layers, {threads} threads"), |bencher| {
            pool.install(|| {
                bencher.iter(|| {
                    black_box(graph.propagate(users.view(), items.view(), 3).expect("shapes fit"))
                });
            });
        });
    }
    group.bench_function("building the graph", |bencher| {
        bencher.iter(|| black_box(Adjacency::new(&train).expect("the graph is small")));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = propagation
}
criterion_main!(benches);
