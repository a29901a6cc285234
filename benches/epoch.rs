//! Whole training epochs: sampling, propagation, loss, gradient, Adam.
//!
//! `cargo bench --bench epoch` measures a generated graph of MovieLens-1M's size. `-- --files
//! TRAIN` measures one epoch of a `user item item …` file with its CPU time, for comparison with
//! `benches/peers`. `-- --generate USERS,ITEMS,INTERACTIONS,BATCH` measures an epoch of a power-law
//! graph of that size, with its memory.
//!
//! Limits on two cores, batch 2048, 64 columns, 3 layers: MovieLens-1M (80 % of
//! it) 16 CPU seconds and 9 seconds, Gowalla 60 CPU seconds.

#![allow(clippy::expect_used, clippy::print_stdout)]

use criterion::Criterion;
use glta_data::Interactions;
use glta_data::readers::{PairsConfig, PairsLayout, pairs};
use glta_graph::{EpochReport, LightGcn, LightGcnConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;
use std::time::Instant;

fn power_law(users: u32, items: u32, draws: usize) -> Interactions {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut skewed = |n: u32, power: i32| (rng.random::<f64>().powi(power) * f64::from(n)) as u32;
    let pairs: Vec<(u32, u32)> = (0..draws).map(|_| (skewed(users, 2), skewed(items, 3))).collect();
    Interactions::from_pairs(users as usize, items as usize, pairs).expect("ids are in range")
}

/// Seconds of processor time of this process, if the system reports them.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |k: usize| fields.get(k).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(12) + ticks(13)) / 100.0
}

fn status_mb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn train(data: &Interactions, config: LightGcnConfig, report: bool) {
    let model = LightGcn::new(config).expect("valid settings");
    let mut cpu = cpu_seconds();
    let mut wall = Instant::now();
    model
        .train_with(data, None, &mut |epoch: &EpochReport| {
            let now = cpu_seconds();
            if report {
                let threads = rayon::current_num_threads();
                println!(
                    "epoch {}: {:.2} s wall, {:.2} s CPU on {threads} threads \
                     ({:.2} s wall with set-up), loss {:.5}",
                    epoch.epoch,
                    epoch.seconds,
                    now - cpu,
                    wall.elapsed().as_secs_f64(),
                    epoch.loss
                );
            }
            cpu = now;
            wall = Instant::now();
            ControlFlow::Continue(())
        })
        .expect("training works");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|k| args.get(k + 1));
    let number = |flag: &str, default: usize| {
        value(flag).map_or(default, |v| v.parse().expect("a number after the flag"))
    };
    let config = LightGcnConfig {
        epochs: number("--epochs", 1),
        batch_size: number("--batch", 2048),
        ..Default::default()
    };
    if let Some(file) = value("--files") {
        let lists = PairsConfig::of(PairsLayout::Lists);
        let data = pairs(file, &lists).expect("a readable file");
        println!("{}", data.stats());
        return train(data.interactions(), config, true);
    }
    if let Some(sizes) = value("--generate") {
        let sizes: Vec<usize> = sizes.split(',').map(|v| v.parse().expect("numbers")).collect();
        let [users, items, draws, batch_size] = sizes[..] else {
            panic!("--generate USERS,ITEMS,INTERACTIONS,BATCH");
        };
        let clock = Instant::now();
        let data = power_law(users as u32, items as u32, draws);
        println!(
            "{} users, {} items, {} distinct interactions, made in {:.1} s, {} MB resident",
            data.n_users(),
            data.n_items(),
            data.len(),
            clock.elapsed().as_secs_f64(),
            status_mb("VmRSS:")
        );
        let before = status_mb("VmHWM:");
        train(&data, LightGcnConfig { batch_size, ..config }, true);
        let embeddings = 4 * 64 * (data.n_users() + data.n_items());
        let rows = 4 * 2 * data.len() + 8 * (data.n_users() + data.n_items());
        println!(
            "peak {} MB ({before} MB before training); 4 x (embeddings + Adam + CSR) is {} MB",
            status_mb("VmHWM:"),
            4 * (3 * embeddings + rows) / 1_000_000
        );
        return;
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let data = power_law(6040, 3706, 1_250_000);
    for (name, batch_size) in [("batch 2048", 2048), ("batch 16384", 16384)] {
        criterion.bench_function(&format!("epoch, {name}"), |bencher| {
            bencher.iter(|| train(&data, LightGcnConfig { batch_size, ..config.clone() }, false));
        });
    }
    criterion.final_summary();
}
