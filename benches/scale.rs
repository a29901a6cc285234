//! A linear model of a large catalogue: time, memory, size on disk, time of a list.
//!
//! ```text
//! cargo bench -p glta-linear --bench scale -- --items 1000000
//! ```
//!
//! The data are generated: items in clusters with power-law popularity, log-normal lists, an
//! item that a fifth of the people have, people with 20,000 items, text vectors of 192
//! dimensions. The last line is JSON.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use cpu_time::ProcessTime;
use glta_core::{pick, stream};
use glta_data::Interactions;
use glta_linear::{
    Growing, LinearConfig, LinearModel, LinearStage, LinearStep, Solver, TextVectors,
};
use ndarray::Array2;
use rand::Rng;
use rayon::prelude::*;

type Error = Box<dyn std::error::Error + Send + Sync>;

const DIM: usize = 192;

/// A draw of the standard normal distribution (Box and Muller).
fn normal(random: &mut impl Rng) -> f64 {
    let u: f64 = 1.0 - random.random::<f64>();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

struct Catalogue {
    /// Cluster of each item, and the items of each cluster.
    members: Vec<Vec<u32>>,
    text: TextVectors,
}

fn catalogue(items: usize) -> Result<Catalogue, Error> {
    let clusters = (items / 200).max(1);
    let mut centres = Array2::<f32>::zeros((clusters, DIM));
    let mut random = stream(1, "centres", &[]);
    centres.mapv_inplace(|_| normal(&mut random) as f32);
    let mut values = vec![0f32; items * DIM];
    values.par_chunks_mut(DIM).enumerate().for_each(|(item, row)| {
        let mut random = stream(1, "text", &[item as u64]);
        let centre = centres.row(item % clusters);
        for (value, centre) in row.iter_mut().zip(centre) {
            *value = centre + normal(&mut random) as f32;
        }
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    });
    let mut members = vec![Vec::new(); clusters];
    for item in 0..items {
        members[item % clusters].push(item as u32);
    }
    let text = TextVectors::new(Array2::from_shape_vec((items, DIM), values)?)?;
    Ok(Catalogue { members, text })
}

/// 2.27 people an item with 23 items each in the mean.
fn interactions(catalogue: &Catalogue, items: usize) -> Result<Interactions, Error> {
    let users = items * 227 / 100;
    let clusters = catalogue.members.len();
    let lists: Vec<Vec<u32>> = (0..users)
        .into_par_iter()
        .map(|user| {
            let mut random = stream(1, "list", &[user as u64]);
            let power_user = user % (users / 5).max(1) == 7;
            let wanted = match power_user {
                true => 20_000.min(items / 4),
                false => (2.75 + 0.85 * normal(&mut random)).exp().clamp(3.0, 2_000.0) as usize,
            };
            let mut list = Vec::with_capacity(wanted + 1);
            let own: Vec<usize> = (0..4).map(|_| random.random_range(0..clusters)).collect();
            for _ in 0..wanted {
                let skewed = random.random::<f64>().powi(3);
                let item = if power_user || random.random_bool(0.3) {
                    (skewed * items as f64) as u32
                } else {
                    let members = &catalogue.members[own[random.random_range(0..4)]];
                    members[(skewed * members.len() as f64) as usize]
                };
                list.push(item);
            }
            if random.random_bool(0.2) {
                list.push(items as u32 / 2);
            }
            list.sort_unstable();
            list.dedup();
            list
        })
        .collect();
    let mut offsets = vec![0];
    let mut columns = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    for list in lists {
        columns.extend(list);
        offsets.push(columns.len());
    }
    Ok(Interactions::from_csr(items, offsets, columns)?)
}

/// Most memory the process has held, in MB.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kb = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok());
    kb.unwrap_or_default() / 1e3
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse::<usize>().ok()
    };
    let items = value("--items").unwrap_or(20_000);
    let sources = value("--sources").unwrap_or(64);
    let catalogue = catalogue(items)?;
    let train = interactions(&catalogue, items)?;
    println!("{} users, {items} items, {} interactions", train.n_users(), train.len());
    println!("peak with the data {:.0} MB", peak_mb());

    let config = LinearConfig {
        solvers: vec![Solver::Local],
        sources: vec![sources],
        l2: vec![30.0],
        text: vec![3.0],
        text_neighbours: 64,
        ..LinearConfig::default()
    };
    let (cpu, mut stage, mut began) = (ProcessTime::now(), None, ProcessTime::now());
    let progress = &mut |step: &LinearStep| {
        if stage != Some(step.stage) {
            if let Some(stage) = stage {
                println!("{stage:?}: {:.1} CPU s", began.elapsed().as_secs_f64());
            }
            (stage, began) = (Some(step.stage), ProcessTime::now());
        }
        std::ops::ControlFlow::Continue(())
    };
    let mut model =
        LinearModel::fit_with(&train, None, Some(&catalogue.text), &config, 1, progress)?;
    let last = LinearStage::Columns;
    println!("{last:?} and temperature: {:.1} CPU s", began.elapsed().as_secs_f64());
    let fit_cpu_seconds = cpu.elapsed().as_secs_f64();
    let fit_peak_mb = peak_mb();
    model.set_weights(0.01, 0.003)?;

    let folder = std::env::temp_dir().join(format!("glta-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("linear.safetensors");
    model.save(&path)?;
    let model_mb = std::fs::metadata(&path)?.len() as f64 / 1e6;
    drop(model);
    let start = Instant::now();
    let model = LinearModel::load(&path, &train, None)?;
    let load_seconds = start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&folder)?;

    let mut random = stream(1, "queries", &[]);
    let all: Vec<u32> = (0..items as u32).collect();
    let mut times = Vec::new();
    let mut lists = 0;
    while lists < 1_000 {
        let user = random.random_range(0..train.n_users() as u32);
        let mut context = train.items(user).to_vec();
        context.extend(pick(&all, 50usize.saturating_sub(context.len()), &mut random));
        context.truncate(50);
        context.sort_unstable();
        let start = Instant::now();
        let best = model.top_items(&context, 20, |item| context.binary_search(&item).is_ok());
        times.push(start.elapsed().as_secs_f64() * 1e3);
        lists += usize::from(best.len() == 20);
    }
    times.sort_by(f64::total_cmp);
    let (p50_ms, p95_ms) = (times[times.len() / 2], times[times.len() * 95 / 100]);

    let mut growing = Growing::new(model, &train, Some(&catalogue.text))?;
    let new = self::catalogue(64)?.text;
    let start = Instant::now();
    growing.add_items(Some(new.view()), 64)?;
    let add_ms = start.elapsed().as_secs_f64() * 1e3 / 64.0;
    let pairs: Vec<(u32, u32)> = (0..100).map(|n| (n * 17, items as u32 + n % 64)).collect();
    growing.add_interactions(&pairs)?;
    let start = Instant::now();
    let folded = growing.fold()?;
    let fold_ms = start.elapsed().as_secs_f64() * 1e3;
    println!("64 items added, {add_ms:.2} ms each; {folded} columns folded in {fold_ms:.0} ms");
    println!("peak with growth {:.0} MB", peak_mb());
    println!(
        "{{\"items\":{items},\"users\":{},\"interactions\":{},\"sources\":{sources},\
         \"fit_cpu_seconds\":{fit_cpu_seconds:.1},\"peak_mb\":{fit_peak_mb:.0},\
         \"model_mb\":{model_mb:.0},\"load_seconds\":{load_seconds:.2},\"p50_ms\":{p50_ms:.3},\
         \"p95_ms\":{p95_ms:.3},\"add_ms\":{add_ms:.2}}}",
        train.n_users(),
        train.len()
    );
    Ok(())
}
