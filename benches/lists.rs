//! The linear model on files of lists, for comparison with the programs of
//! `benches/peers/item_models.py`, which writes the files, runs this bench and prints the table.
//!
//! ```text
//! cargo bench -p glta-linear --bench lists -- --write FOLDER --items 100000
//! cargo bench -p glta-linear --bench lists -- --data FOLDER [--text FOLDER/text.npy]
//! ```
//!
//! The first command writes generated `train.txt`, `test.txt` and `text.npy`. The second chooses
//! settings with `fit.txt` and `valid.txt`, parts of `train.txt`, fits all of `train.txt` with
//! them, and ranks the items of `test.txt`. A line of a file is a user and the user's items.

#![allow(clippy::print_stdout)]

#[path = "support/generated.rs"]
mod generated;
#[path = "support/measured.rs"]
mod measured;
#[path = "support/pairs.rs"]
mod pairs;

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use cpu_time::ProcessTime;
use generated::{Error, catalogue, interactions};
use glta_core::{Silent, pick, stream};
use glta_data::Interactions;
use glta_linear::{LinearConfig, LinearModel, Solver, TextVectors};
use glta_metrics::{EvaluationConfig, Metric, evaluate};
use measured::{argument, peak_mb};
use ndarray::Array2;
use ndarray_npy::{read_npy, write_npy};
use pairs::pairs;

/// One in this many users of the generated data has a fifth of the items in the test part.
const TESTED: u32 = 20;

fn lists(data: &Interactions) -> String {
    let mut text = String::new();
    for user in 0..data.n_users() as u32 {
        if !data.items(user).is_empty() {
            let _ = write!(text, "{user}");
            for item in data.items(user) {
                let _ = write!(text, " {item}");
            }
            text.push('\n');
        }
    }
    text
}

fn write(folder: &Path, items: usize) -> Result<(), Error> {
    let made = catalogue(items)?;
    let all = interactions(&made, items)?;
    let (mut of, mut hidden) = (u32::MAX, Vec::new());
    let mut hide = |user: u32, item: u32| -> bool {
        if of != user {
            of = user;
            let own = all.items(user);
            let count = if user % TESTED == 3 && own.len() > 4 { own.len() / 5 } else { 0 };
            hidden = pick(own, count, &mut stream(1, "test", &[user.into()]));
        }
        hidden.binary_search(&item).is_ok()
    };
    let mut test = Vec::new();
    let train = all.filter(|user, item| {
        let hidden = hide(user, item);
        if hidden {
            test.push((user, item));
        }
        !hidden
    });
    let test = Interactions::from_pairs(all.n_users(), items, test)?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("train.txt"), lists(&train))?;
    std::fs::write(folder.join("test.txt"), lists(&test))?;
    write_npy(folder.join("text.npy"), &made.text.view())?;
    println!("{} users, {items} items, {} + {} pairs", all.n_users(), train.len(), test.len());
    Ok(())
}

fn main() -> Result<(), Error> {
    let items = argument("--items").map(|items| items.parse()).transpose()?;
    if let Some(folder) = argument("--write") {
        return write(Path::new(&folder), items.unwrap_or(20_000));
    }
    let Some(folder) = argument("--data") else {
        println!("give --data FOLDER, or --write FOLDER --items NUMBER");
        return Ok(());
    };
    let read = |name: &str| pairs(Path::new(&folder).join(name));
    let (fit, valid, train, test) =
        (read("fit.txt")?, read("valid.txt")?, read("train.txt")?, read("test.txt")?);
    let size = |id: fn(&(u32, u32)) -> u32| {
        train.iter().chain(&test).map(id).max().map_or(0, |id| id as usize + 1)
    };
    let (users, mut items) = (size(|pair| pair.0), size(|pair| pair.1));
    let text = match argument("--text") {
        Some(path) => {
            let vectors: Array2<f32> = read_npy(path)?;
            items = vectors.nrows();
            Some(TextVectors::new(vectors)?)
        }
        None => None,
    };
    let matrix = |pairs: Vec<(u32, u32)>| Interactions::from_pairs(users, items, pairs);
    let (fit, valid, train, test) = (matrix(fit)?, matrix(valid)?, matrix(train)?, matrix(test)?);

    let config = LinearConfig {
        solvers: vec![Solver::Local],
        sources: vec![64, 128],
        l2: vec![10.0, 30.0, 100.0],
        text: vec![3.0, 10.0],
        text_neighbours: 64,
        ..LinearConfig::default()
    };
    let text = text.as_ref();
    let cpu = ProcessTime::now();
    let chosen = LinearModel::fit(&fit, Some(&valid), text, &config, 1)?.report().clone();
    let choose_cpu = cpu.elapsed().as_secs_f64();
    let (cpu, start) = (ProcessTime::now(), Instant::now());
    let model = LinearModel::refit_with(&chosen, &train, text, &config, 1, &mut Silent)?;
    let (fit_cpu, fit_seconds) = (cpu.elapsed().as_secs_f64(), start.elapsed().as_secs_f64());
    let peak = peak_mb();
    let ks = EvaluationConfig { ks: vec![20], ..EvaluationConfig::default() };
    let start = Instant::now();
    let report = evaluate(&model, &test, &[&train], &ks)?;
    let value = |metric| report.get(metric, 20).unwrap_or_default();
    println!(
        "{{\"settings\":\"{}, l2 {}, text {}, neighbours {}, popularity {}\",\
         \"choose_cpu_seconds\":{choose_cpu:.1},\"fit_cpu_seconds\":{fit_cpu:.1},\
         \"fit_seconds\":{fit_seconds:.1},\"peak_mb\":{peak:.0},\"lists_seconds\":{:.1},\
         \"recall_20\":{:.4},\"ndcg_20\":{:.4}}}",
        chosen.form,
        chosen.l2,
        chosen.text,
        chosen.neighbours,
        chosen.popularity,
        start.elapsed().as_secs_f64(),
        value(Metric::Recall),
        value(Metric::Ndcg),
    );
    Ok(())
}
