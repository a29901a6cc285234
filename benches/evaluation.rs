//! Full-ranking evaluation at the size of MovieLens 1M: 6,040 users, 3,706
//! items, 64 dimensions, training items masked, top 20, all metrics.
//!
//! Limit: 0.1 s on one thread (CPU seconds). The floor is the time of the matrix product alone.
//! `GLTA_BENCH_SCALE=1` adds 10,000 users × one million items, at some 20 s per sample.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use cpu_time::ProcessTime;
use criterion::{Criterion, criterion_group, criterion_main};
use glta_data::Interactions;
use glta_metrics::{DotScorer, EvaluationConfig, Scorer, evaluate};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(100);

struct Problem {
    users: Array2<f32>,
    items: Array2<f32>,
    train: Interactions,
    test: Interactions,
}

impl Problem {
    fn new(n_users: usize, n_items: usize, per_user: (usize, usize)) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut vectors =
            |n| Array2::from_shape_simple_fn((n, 64), || rng.random_range(-1.0f32..1.0));
        let (users, items) = (vectors(n_users), vectors(n_items));
        let mut sample = |per_user: usize| {
            let pairs: Vec<(u32, u32)> = (0..n_users as u32)
                .flat_map(|u| (0..per_user).map(move |_| u))
                .map(|u| (u, rng.random_range(0..n_items as u32)))
                .collect();
            Interactions::from_pairs(n_users, n_items, pairs).unwrap()
        };
        let (train, test) = (sample(per_user.0), sample(per_user.1));
        let test = test.filter(|u, i| !train.contains(u, i));
        Self { users, items, train, test }
    }

    fn scorer(&self) -> DotScorer<'_> {
        DotScorer { users: self.users.view(), items: self.items.view() }
    }

    fn evaluate(&self) {
        let config = EvaluationConfig::default();
        evaluate(&self.scorer(), &self.test, &[&self.train], &config).unwrap();
    }
}

fn evaluation(c: &mut Criterion) {
    // One thread, so that wall time is CPU time.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let problem = Problem::new(6_040, 3_706, (132, 33));
    let mut group = c.benchmark_group("evaluation/ml-1m");
    group.sample_size(20);
    group.bench_function("all metrics at 5, 10, 20", |b| {
        b.iter(|| one.install(|| problem.evaluate()));
    });
    group.bench_function("scores alone", |b| {
        let blocks: Vec<u32> = (0..6_040).collect();
        let mut out = Array2::zeros((128, 3_706));
        b.iter(|| {
            for block in blocks.chunks(128) {
                let rows = out.slice_mut(ndarray::s![..block.len(), ..]);
                problem.scorer().score(block, rows).unwrap();
            }
        });
    });
    group.finish();
    let best = (0..10)
        .map(|_| {
            let start = ProcessTime::now();
            one.install(|| problem.evaluate());
            start.elapsed()
        })
        .min()
        .unwrap();
    let verdict = if best <= LIMIT { "within" } else { "ABOVE" };
    println!("full ranking 6,040 x 3,706: {best:.1?} CPU, {verdict} the limit of {LIMIT:.1?}");

    if std::env::var_os("GLTA_BENCH_SCALE").is_some() {
        let problem = Problem::new(10_000, 1_000_000, (50, 10));
        let (start, cpu) = (Instant::now(), ProcessTime::now());
        problem.evaluate();
        let (wall, cpu) = (start.elapsed(), cpu.elapsed());
        println!("10,000 x 1,000,000: {cpu:.1?} CPU, {wall:.1?} wall");
    }
}

criterion_group!(benches, evaluation);
criterion_main!(benches);
