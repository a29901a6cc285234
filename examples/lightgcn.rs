//! Trains and evaluates LightGCN on a split that was published as two files, or
//! on one file that it splits itself.
//!
//! ```text
//! cargo run --release --example lightgcn -- \
//!     --train train.txt --test test.txt --out runs/lightgcn
//! cargo run --release --example lightgcn -- \
//!     --layout pairs --train ratings.dat --seed 2024,2025 --out runs/ml-1m
//! ```
//!
//! Leaves in the output folder (with several seeds, all but `metrics.json` in
//! a folder for each): `metrics.json`, `history.json`, the curves
//! `loss.svg` and `metrics.svg`, the embeddings `nodes.safetensors` and those
//! below them, `layer0.safetensors` (for `--start`), and after a search
//! `search.json`. Ctrl-C leaves `stopped.safetensors`, for `--start` too.

#![allow(clippy::print_stdout, clippy::print_stderr)]

// This example needs only a part of it.
#[allow(dead_code)]
mod common;
#[path = "lightgcn/plot.rs"]
mod plot;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use common::Result;
use common::progress::Reporter;
use common::ranks::{Ranks, traffic};
use common::report::{peak_rss_mb, save};
use glta::comm::Communicator;
use glta::data::readers::{PairsConfig, PairsLayout, pairs, split_pairs};
use glta::data::{Dataset, Split, SplitConfig, Stats};
use glta::graph::{EpochReport, Error, LightGcn, LightGcnConfig, NodeEmbeddings, Trained};
use glta::metrics::{EvaluationConfig, Report, evaluate};
use glta::shared::{Grid, search, settings};
use serde::Serialize;
use serde_json::{Value, json};

/// Train and evaluate LightGCN on split files
#[derive(Parser, Debug)]
struct Args {
    /// Training interactions, plain or gzipped
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Test interactions over the same ids; without it, a share of each user's
    /// items in the training file is held out
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// The share that is held out where there is no test file
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    test_ratio: f64,
    /// Folder for everything the run leaves behind
    #[arg(long, value_name = "DIR", default_value = "runs/lightgcn")]
    out: PathBuf,
    /// What a line holds: `user item item …` or `user item`
    #[arg(long, value_enum, default_value = "lists")]
    layout: Layout,
    /// Share of each user's training items kept for validation; 0 trains on all
    /// of them for the full number of epochs
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    valid_ratio: f64,
    /// Seeds of the split and of training; everything is repeated for each
    #[arg(long, value_name = "N", value_delimiter = ',')]
    seed: Vec<u64>,
    /// TOML file with fields of LightGcnConfig
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One field over the file, such as layers=2 (repeatable)
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// TOML file of lists of values; every combination is trained, the best on
    /// validation data is kept
    #[arg(long, value_name = "FILE")]
    search: Option<PathBuf>,
    /// Start from these layer-0 embeddings instead of random ones
    #[arg(long, value_name = "FILE")]
    start: Option<PathBuf>,
    /// Without validation data: evaluate on the test data while training, to draw
    /// the curve; nothing is chosen by it
    #[arg(long)]
    watch_test: bool,
    /// Threads; all cores if not given
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// No progress, only the result
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    Lists,
    Pairs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    common::exit_on_ranks(|ranks| run(&args, ranks))
}

fn run(args: &Args, ranks: &Ranks) -> Result<()> {
    let started = Instant::now();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let config = configuration(args)?;
    std::fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    let layout = match args.layout {
        Layout::Lists => PairsLayout::Lists,
        Layout::Pairs => PairsLayout::Pairs,
    };
    let data = Data::read(args, &PairsConfig { layout, ..Default::default() })?;
    if ranks.is_root() {
        println!("{}", data.dataset.stats());
    }
    let start = args.start.as_deref().map(NodeEmbeddings::load).transpose()?;
    let seeds = if args.seed.is_empty() { vec![config.seed] } else { args.seed.clone() };

    let mut runs = Vec::new();
    for &seed in &seeds {
        let config = LightGcnConfig { seed, ..config.clone() };
        let out = match seeds.len() {
            1 => args.out.clone(),
            _ => args.out.join(format!("seed-{seed}")),
        };
        std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
        let split = data.split(args, seed)?;
        let clock = Instant::now();
        let (config, trained) = match &args.search {
            None => match train(args, ranks, &config, &split, start.as_ref()) {
                Ok(trained) => (config.clone(), trained),
                Err(Error::Cancelled(trained)) => return stopped(ranks, &out, &trained),
                Err(error) => return Err(error.into()),
            },
            Some(path) => tune(args, ranks, path, &out, &config, &split, start.as_ref())?,
        };
        let seconds = clock.elapsed().as_secs_f64();

        if !ranks.is_root() {
            continue;
        }
        let masked = [&split.train, &split.valid];
        let scorer = trained.embeddings.scorer();
        let report = evaluate(&scorer, &split.test, &masked, &EvaluationConfig::default())?;
        trained.embeddings.save(out.join("nodes.safetensors"))?;
        trained.layer0.save(out.join("layer0.safetensors"))?;
        save(&out.join("history.json"), &serde_json::to_vec_pretty(&trained.history)?)?;
        plot::loss(&out.join("loss.svg"), &trained.history)?;
        plot::metrics(&out.join("metrics.svg"), &trained.history)?;
        runs.push(Run { config, trained, report, seconds });
    }
    if !ranks.is_root() {
        return Ok(());
    }
    let record = Record {
        dataset: data.dataset.stats(),
        protocol: json!({
            "split": if args.test.is_some() { "published files" } else { "random per user" },
            "test_ratio": args.test.is_none().then_some(args.test_ratio),
            "valid_ratio": args.valid_ratio,
            "seeds": seeds,
            "masked": if args.valid_ratio > 0.0 { "train+valid" } else { "train" },
        }),
        config: runs.first().map(|run| &run.config),
        rows: runs.iter().map(Run::row).collect(),
    };
    save(&args.out.join("metrics.json"), &serde_json::to_vec_pretty(&record)?)?;
    print_table(&runs);
    if let Some(line) = traffic(ranks, started) {
        println!("\n{line}");
    }
    Ok(())
}

/// The interactions, and their split where it was published.
struct Data {
    dataset: Dataset,
    published: Option<Split>,
}

impl Data {
    fn read(args: &Args, config: &PairsConfig) -> Result<Self> {
        let folder = args.train.parent().and_then(Path::file_name).unwrap_or_default();
        Ok(match &args.test {
            Some(test) => {
                let (dataset, split) =
                    split_pairs(folder.to_string_lossy(), &args.train, test, config)?;
                Self { dataset, published: Some(split) }
            }
            None => Self { dataset: pairs(&args.train, config)?, published: None },
        })
    }

    fn split(&self, args: &Args, seed: u64) -> Result<Split> {
        let valid_ratio = args.valid_ratio;
        Ok(match &self.published {
            Some(split) => {
                Split::with_validation(&split.train, split.test.clone(), valid_ratio, seed)?
            }
            None => {
                let test_ratio = args.test_ratio;
                let config =
                    SplitConfig { seed, test_ratio, valid_ratio, ..SplitConfig::default() };
                Split::new(&self.dataset, &config)?
            }
        })
    }
}

/// One seed's result.
struct Run {
    config: LightGcnConfig,
    trained: Trained,
    report: Report,
    seconds: f64,
}

/// What `metrics.json` holds.
#[derive(Serialize)]
struct Record<'a> {
    dataset: Stats,
    protocol: Value,
    /// The first seed's; every row has its own.
    config: Option<&'a LightGcnConfig>,
    rows: Vec<Value>,
}

/// Defaults, then the file, then the flags.
fn configuration(args: &Args) -> Result<LightGcnConfig> {
    let mut config = match &args.config {
        None => LightGcnConfig::default(),
        Some(path) => read_toml(path)?,
    };
    for assignment in &args.set {
        settings::set(&mut config, assignment).map_err(|e| format!("--set {assignment}: {e}"))?;
    }
    config.validate()?;
    Ok(config)
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn train(
    args: &Args,
    ranks: &Ranks,
    config: &LightGcnConfig,
    split: &Split,
    start: Option<&NodeEmbeddings>,
) -> std::result::Result<Trained, Error> {
    let watched = if !split.valid.is_empty() {
        Some(&split.valid)
    } else {
        args.watch_test.then_some(&split.test)
    };
    let keep_best = config.keep_best && !split.valid.is_empty();
    let patience = if keep_best { config.patience } else { 0 };
    let model = LightGcn::new(LightGcnConfig { keep_best, patience, ..config.clone() })?;
    let mut reporter = Reporter::new(args.quiet || !ranks.is_root());
    let mut progress = |epoch: &EpochReport| {
        let mut note = format!("loss {:.5}, {:.2} s", epoch.loss, epoch.seconds);
        if epoch.validation.is_some() {
            let metric = |name: &str| epoch.metrics.get(name).copied().unwrap_or_default();
            note += &format!(", N@10 {:.4} R@20 {:.4}", metric("N@10"), metric("R@20"));
            note += if epoch.best { " *" } else { "" };
        }
        reporter.advance("epoch", epoch.epoch as u64, config.epochs as u64, &note)
    };
    let trained = model.train_on(&**ranks, start, &split.train, watched, &mut progress);
    reporter.finish();
    trained
}

/// Saves what Ctrl-C left unfinished, beside a complete run that may be there.
fn stopped(ranks: &Ranks, out: &Path, trained: &Trained) -> Result<()> {
    if ranks.is_root() {
        let path = out.join("stopped.safetensors");
        trained.layer0.save(&path)?;
        let epochs = trained.history.len();
        eprintln!("{epochs} epochs are kept; go on from them with --start {}", path.display());
    }
    // A rank that leaves ends the others: not while rank 0 writes.
    ranks.barrier()?;
    Err("stopped".into())
}

/// Tries every setting of the grid file.
fn tune(
    args: &Args,
    ranks: &Ranks,
    path: &Path,
    out: &Path,
    base: &LightGcnConfig,
    split: &Split,
    start: Option<&NodeEmbeddings>,
) -> Result<(LightGcnConfig, Trained)> {
    if split.valid.is_empty() {
        return Err("--search chooses on validation data: give a --valid-ratio above 0".into());
    }
    let grid: Grid = read_toml(path)?;
    let candidates = grid.candidates(base)?;
    let mut done = 0;
    let found = search(&candidates, |config| {
        done += 1;
        if !args.quiet && ranks.is_root() {
            eprintln!("search {done}/{}: {}", candidates.len(), changes(&grid, config));
        }
        let trained = train(args, ranks, config, split, start)?;
        Ok::<_, Error>((trained.best_validation().unwrap_or(f64::NAN), trained))
    })?;
    if ranks.is_root() {
        println!("\n{:>10} {:>9}  settings", "validation", "seconds");
        for trial in &found.trials {
            let settings = changes(&grid, &trial.config);
            println!("{:>10.4} {:>9.1}  {settings}", trial.score, trial.seconds);
        }
        save(&out.join("search.json"), &serde_json::to_vec_pretty(&found.trials)?)?;
    }
    let (best, trained) = found.best.ok_or("no setting gave a validation score")?;
    Ok((candidates[best].clone(), trained))
}

/// The fields of the grid as a candidate has them.
fn changes(grid: &Grid, config: &LightGcnConfig) -> String {
    let value = serde_json::to_value(config).unwrap_or_default();
    let field = |name: &String| {
        let pointer = format!("/{}", name.replace('.', "/"));
        match value.pointer(&pointer) {
            Some(Value::Number(n)) => format!("{name}={}", n.as_f64().unwrap_or(0.0) as f32),
            Some(other) => format!("{name}={other}"),
            None => name.clone(),
        }
    };
    grid.0.keys().map(field).collect::<Vec<_>>().join(" ")
}

impl Run {
    fn row(&self) -> Value {
        let Self { config, trained, report, seconds } = self;
        let epochs = trained.history.len();
        let trained_for: f64 = trained.history.iter().map(|e| e.seconds).sum();
        let mut row = BTreeMap::from([
            ("system".to_owned(), json!("LightGCN")),
            ("seed".to_owned(), json!(config.seed)),
            // With its seed, and as a search has chosen it.
            ("config".to_owned(), json!(config)),
            ("train_seconds".to_owned(), json!(seconds)),
            ("seconds_per_epoch".to_owned(), json!(trained_for / epochs.max(1) as f64)),
            ("epochs".to_owned(), json!(epochs)),
            ("best_epoch".to_owned(), json!(trained.best_epoch)),
            ("peak_rss_mb".to_owned(), json!(peak_rss_mb())),
        ]);
        row.extend(report.iter().map(|(name, value)| (name, json!(value))));
        if let (Some(value), true) = (trained.best_validation(), config.keep_best) {
            let selection = config.selection;
            let name = format!("valid_{}@{}", selection.metric.short_name(), selection.k);
            row.insert(name, json!(value));
        }
        json!(row)
    }
}

/// One line for every seed, and their mean and standard deviation.
fn print_table(runs: &[Run]) {
    let columns = ["P@5", "P@10", "P@20", "N@5", "N@10", "N@20", "R@20"];
    let names = columns.map(|c| format!("{c:>8}")).concat();
    println!("\n{:<16}{names}{:>8}{:>9}", "LightGCN", "epoch", "seconds");
    let values = |run: &Run| {
        let metrics: BTreeMap<String, f64> = run.report.iter().collect();
        columns.map(|c| metrics.get(c).copied().unwrap_or_default())
    };
    let line = |name: &str, values: [f64; 7]| {
        format!("{name:<16}{}", values.map(|v| format!("{v:>8.4}")).concat())
    };
    for run in runs {
        let name = format!("seed {}", run.config.seed);
        let (epoch, seconds) = (run.trained.best_epoch, run.seconds);
        println!("{}{epoch:>8}{seconds:>9.1}", line(&name, values(run)));
    }
    if runs.len() > 1 {
        let all: Vec<[f64; 7]> = runs.iter().map(values).collect();
        let n = all.len() as f64;
        let mean: [f64; 7] = std::array::from_fn(|c| all.iter().map(|v| v[c]).sum::<f64>() / n);
        let deviation = std::array::from_fn(|c| {
            let squares: f64 = all.iter().map(|v| (v[c] - mean[c]).powi(2)).sum();
            (squares / (n - 1.0)).sqrt()
        });
        println!("{}\n{}", line("mean", mean), line("deviation", deviation));
    }
}
