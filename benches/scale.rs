//! A linear model of a large catalogue: time, memory, size of the file, time of a list.
//!
//! ```text
//! cargo bench -p glta-linear --bench scale -- --items 1000000
//! ```
//!
//! The data are generated: items in clusters with power-law popularity, list lengths from a
//! log-normal distribution, an item that a fifth of the users have, users with 20,000 items, and
//! text vectors of 192 dimensions. The last line is JSON.
//!
//! `--recall VECTORS.npy` measures only the approximate text neighbours. The whitened vectors are
//! repeated with noise until there are `--items` of them, and the exact ten nearest of 1,000 items
//! are compared with the found neighbours. `--noise` is the length of the noise relative to that of
//! a vector, .3 by default.

#![allow(clippy::print_stdout)]

#[path = "support/generated.rs"]
mod generated;
#[path = "support/measured.rs"]
mod measured;
#[path = "support/recall.rs"]
mod recall;

use std::path::Path;
use std::time::Instant;

use cpu_time::{ProcessTime, ThreadTime};
use generated::{Error, catalogue, interactions};
use glta_core::{pick, stream};
use glta_linear::{Growing, LinearConfig, LinearModel, LinearStage, LinearStep, Solver};
use measured::{argument, peak_mb};
use rand::Rng;

fn main() -> Result<(), Error> {
    let number = |name: &str| argument(name).map(|value| value.parse::<usize>()).transpose();
    let items = number("--items")?.unwrap_or(20_000);
    let sources = number("--sources")?.unwrap_or(64);
    if let Some(vectors) = argument("--recall") {
        return recall::recall(Path::new(&vectors), items);
    }
    let made = catalogue(items)?;
    let train = interactions(&made, items)?;
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
    let mut model = LinearModel::fit_with(&train, None, Some(&made.text), &config, 1, progress)?;
    let last = LinearStage::Columns;
    println!("{last:?} and temperature: {:.1} CPU s", began.elapsed().as_secs_f64());
    let fit_cpu_seconds = cpu.elapsed().as_secs_f64();
    model.set_weights(0.01, 0.003)?;

    let folder = std::env::temp_dir().join(format!("glta-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("linear.safetensors");
    model.save(&path)?;
    let model_mb = std::fs::metadata(&path)?.len() as f64 / 1e6;
    let fit_peak_mb = peak_mb();
    drop(model);
    let start = Instant::now();
    let model = LinearModel::load(&path, &train, None)?;
    let load_seconds = start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&folder)?;

    let mut random = stream(1, "queries", &[]);
    let all: Vec<u32> = (0..items as u32).collect();
    let (mut times, mut cpu_times) = (Vec::new(), Vec::new());
    let mut lists = 0;
    while lists < 1_000 {
        let user = random.random_range(0..train.n_users() as u32);
        let mut context = train.items(user).to_vec();
        context.extend(pick(&all, 50usize.saturating_sub(context.len()), &mut random));
        context.truncate(50);
        context.sort_unstable();
        let (start, cpu) = (Instant::now(), ThreadTime::now());
        let best =
            model.top_log_probabilities(&context, 20, |item| context.binary_search(&item).is_ok());
        times.push(start.elapsed().as_secs_f64() * 1e3);
        cpu_times.push(cpu.elapsed().as_secs_f64() * 1e3);
        lists += usize::from(best.len() == 20);
    }
    times.sort_by(f64::total_cmp);
    cpu_times.sort_by(f64::total_cmp);
    let (p50_ms, p95_ms) = (times[times.len() / 2], times[times.len() * 95 / 100]);
    let p95_cpu_ms = cpu_times[times.len() * 95 / 100];

    let mut growing = Growing::new(model, &train, Some(&made.text))?;
    let new = catalogue(64)?.text;
    let (start, cpu) = (Instant::now(), ProcessTime::now());
    growing.add_items(Some(new.view()), 64)?;
    let add_ms = start.elapsed().as_secs_f64() * 1e3 / 64.0;
    let add_cpu_ms = cpu.elapsed().as_secs_f64() * 1e3 / 64.0;
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
         \"p95_ms\":{p95_ms:.3},\"p95_cpu_ms\":{p95_cpu_ms:.3},\"add_item_ms\":{add_ms:.2},\
         \"add_item_cpu_ms\":{add_cpu_ms:.2}}}",
        train.n_users(),
        train.len()
    );
    Ok(())
}
