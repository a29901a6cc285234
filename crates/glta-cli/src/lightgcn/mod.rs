//! `glta lightgcn`: trains and evaluates LightGCN on a split that was published as two files, or on
//! one file that it splits itself.
//!
//! The output folder receives these files (with several seeds, all except `metrics.json` are in a
//! folder per seed): `metrics.json`, `history.json`, the curves `loss.svg` and `metrics.svg`, the
//! embeddings `nodes.safetensors`, the layer-0 embeddings `layer0.safetensors` (for `--start`), and
//! after a search `search.json`. After Ctrl-C, the folder contains the layer-0 embeddings
//! `stopped.safetensors`, also for `--start`.

mod args;
mod data;
mod plot;
mod record;
mod settings;
mod table;
mod train;
mod tune;

pub use args::LightgcnArgs;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use glta_comm::Communicator;
use glta_graph::{Error, LightGcnConfig, NodeEmbeddings};
use glta_metrics::{EvaluationConfig, evaluate};

use crate::files::{make_dir, save};
use crate::output::outln;
use crate::ranks::{Ranks, traffic};
use crate::{Result, exit_on_ranks};
use data::Data;
use record::SeedResult;
use train::Training;

/// Trains, evaluates, and writes the files. All ranks call this function.
pub fn run(args: &LightgcnArgs) -> ExitCode {
    exit_on_ranks(|ranks| run_on(args, ranks))
}

fn run_on(args: &LightgcnArgs, ranks: &Ranks) -> Result<()> {
    let started = Instant::now();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let config = settings::configuration(args)?;
    make_dir(&args.out)?;
    let data = Data::read(args)?;
    if ranks.is_root() {
        outln!("{}", data.dataset.stats());
    }
    let start = args.start.as_deref().map(NodeEmbeddings::load).transpose()?;
    let seeds = if args.seed.is_empty() { vec![config.seed] } else { args.seed.clone() };
    let mut results = Vec::new();
    for &seed in &seeds {
        let config = LightGcnConfig { seed, ..config.clone() };
        let out = match seeds.len() {
            1 => args.out.clone(),
            _ => args.out.join(format!("seed-{seed}")),
        };
        results.extend(run_seed(args, ranks, &data, config, start.as_ref(), &out)?);
    }
    if ranks.is_root() {
        let record = record::record(args, &data, &seeds, &results);
        save(&args.out.join("metrics.json"), &serde_json::to_vec_pretty(&record)?)?;
        table::print(&results);
        if let Some(line) = traffic(ranks, started) {
            outln!("\n{line}");
        }
    }
    Ok(())
}

/// Splits, trains or searches, and evaluates for one seed. Rank 0 writes the files to `out` and
/// returns the result.
fn run_seed(
    args: &LightgcnArgs,
    ranks: &Ranks,
    data: &Data,
    config: LightGcnConfig,
    start: Option<&NodeEmbeddings>,
    out: &Path,
) -> Result<Option<SeedResult>> {
    make_dir(out)?;
    let split = data.split(args, config.seed)?;
    let training = Training { args, ranks, split: &split, start };
    let clock = Instant::now();
    let (config, trained) = match &args.search {
        None => match training.train(&config) {
            Ok(trained) => (config, trained),
            Err(Error::Cancelled(trained)) => return Err(train::stopped(ranks, out, &trained)),
            Err(error) => return Err(error.into()),
        },
        Some(grid) => tune::tune(&training, grid, out, &config)?,
    };
    let seconds = clock.elapsed().as_secs_f64();
    if !ranks.is_root() {
        return Ok(None);
    }
    let masked = [&split.train, &split.valid];
    let scorer = trained.embeddings.scorer();
    let report = evaluate(&scorer, &split.test, &masked, &EvaluationConfig::default())?;
    trained.embeddings.save(out.join("nodes.safetensors"))?;
    trained.layer0.save(out.join("layer0.safetensors"))?;
    save(&out.join("history.json"), &serde_json::to_vec_pretty(&trained.history)?)?;
    plot::loss(&out.join("loss.svg"), &trained.history)?;
    plot::metrics(&out.join("metrics.svg"), &trained.history)?;
    Ok(Some(SeedResult { config, trained, report, seconds }))
}
