//! Reads a ratings file in the MovieLens CSV format, on one core.
//!
//! The file is generated, with `GLTA_BENCH_LINES` lines (default two million; MovieLens 25M has 25
//! million). Users are in order, as in the real file. The limit is five million lines per second.
//! The floor, measured in the same run, is reading the file and counting its line ends. The bench
//! also prints peak memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use cpu_time::ProcessTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use glta_data::{Interactions, readers};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

const LIMIT: f64 = 5e6;
const ITEMS: u32 = 62_000;

fn generate(folder: &Path, lines: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut ratings = BufWriter::new(File::create(folder.join("ratings.csv")).unwrap());
    writeln!(ratings, "userId,movieId,rating,timestamp").unwrap();
    let (mut user, mut left) = (0, 0);
    for _ in 0..lines {
        if left == 0 {
            user += 1;
            // Mean 154, as in MovieLens 25M.
            left = rng.random_range(20..289);
        }
        left -= 1;
        // Squared, so that few items have most ratings.
        let item = (f64::from(ITEMS) * rng.random::<f64>().powi(2)) as u32 + 1;
        let halves = rng.random_range(1..=10);
        let rating = f64::from(halves) / 2.0;
        let time = rng.random_range(900_000_000u32..1_500_000_000);
        writeln!(ratings, "{user},{item},{rating:.1},{time}").unwrap();
    }
    ratings.flush().unwrap();
    let mut movies = BufWriter::new(File::create(folder.join("movies.csv")).unwrap());
    writeln!(movies, "movieId,title,genres").unwrap();
    for item in 1..=ITEMS {
        writeln!(movies, "{item},\"Film, The {item} (1999)\",Action|Drama").unwrap();
    }
    movies.flush().unwrap();
}

/// Counts the line ends of a file, with buffers of the same size.
fn count_lines(path: &Path) -> usize {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return lines,
            n => lines += memchr::memchr_iter(b'\n', &buffer[..n]).count(),
        }
    }
}

/// Peak resident memory of the process in MB, if the system reports it.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// Builds the matrix of `pairs` random pairs in random order.
fn interactions(pairs: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let n_users = (pairs / 50).max(1) as u32;
    let users: Vec<u32> = (0..pairs).map(|_| rng.random_range(0..n_users)).collect();
    let items: Vec<u32> = (0..pairs).map(|_| rng.random_range(0..ITEMS)).collect();
    let start = ProcessTime::now();
    let matrix =
        Interactions::from_columns(n_users as usize, ITEMS as usize, &users, &items).unwrap();
    println!("matrix of {} of {pairs} random pairs: {:.2?} CPU", matrix.len(), start.elapsed());
}

fn load(c: &mut Criterion) {
    let lines = std::env::var("GLTA_BENCH_LINES").map_or(2_000_000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), lines);
    let ratings = folder.path().join("ratings.csv");

    let before = peak_mb();
    let start = ProcessTime::now();
    let data = readers::movielens(folder.path()).unwrap();
    let took = start.elapsed().as_secs_f64();
    let ids_mb = lines * 8 / 1_000_000;
    if let (Some(before), Some(after)) = (before, peak_mb()) {
        println!("peak memory grew by {} MB; the ids alone are {ids_mb} MB", after - before);
    }
    println!("{}", data.stats());
    drop(data);
    let start = ProcessTime::now();
    assert_eq!(count_lines(&ratings) as u64, lines + 1);
    let floor = start.elapsed().as_secs_f64();
    println!("floor, reading and counting line ends: {floor:.2} CPU s");
    // CPU seconds, because the reader uses one thread and other load must not count.
    let rate = lines as f64 / took;
    let verdict = if rate >= LIMIT { "above" } else { "BELOW" };
    println!(
        "{lines} lines in {took:.2} CPU s: {:.1} million a second, {verdict} the limit of 5",
        rate / 1e6
    );

    interactions(lines);

    let mut group = c.benchmark_group("load");
    group.sample_size(10).throughput(Throughput::Elements(lines));
    group.bench_function("movielens csv", |b| {
        b.iter(|| readers::movielens(folder.path()).unwrap());
    });
    group.bench_function("floor: read and count line ends", |b| {
        b.iter(|| count_lines(&ratings));
    });
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
