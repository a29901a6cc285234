//! `glta reproduce`: runs the paper's result section on one data set.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use glta_comm::Communicator;
use glta_eval::{ExperimentConfig, LlmPathConfig, LlmPathCost, ProtocolConfig, paper};

use crate::datasets::{self, AmazonFlags, DataSource, GoodreadsFlags, MovielensFlags};
use crate::flags::ExperimentFlags;
use crate::output::outln;
use crate::ranks::{Ranks, root_first};
use crate::{Result, exit_on_ranks, experiment};

/// Run all systems of the paper's tables and figures on one data set.
#[derive(Debug, Args)]
pub struct ReproduceArgs {
    #[command(flatten)]
    flags: ExperimentFlags,
    /// Publisher of the data set.
    #[arg(long, help_heading = "Data")]
    dataset: Kind,
    /// Experiment to run.
    #[arg(long, default_value = "paper", help_heading = "Systems")]
    experiment: What,
    /// paper: amount of training per system.
    #[arg(long, default_value = "full", help_heading = "Settings")]
    budget: Budget,
    /// llm-path: speed of the device in TFLOP/s, from which the duration is estimated [default: 0.1
    /// on a CPU, 200 on a GPU]
    #[arg(long, value_name = "NUMBER", help_heading = "Settings")]
    tflops: Option<f64>,
    #[command(flatten)]
    movielens: MovielensFlags,
    #[command(flatten)]
    amazon: AmazonFlags,
    #[command(flatten)]
    goodreads: GoodreadsFlags,
    /// Amazon and Goodreads: minimum number of interactions of each user and item; users and items
    /// with fewer are removed repeatedly.
    #[arg(long, default_value_t = 5, help_heading = "Data")]
    k_core: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Movielens,
    Goodreads,
    Amazon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The paper's result section.
    Paper,
    /// A test of whether prompts improve the linear model: states of a prompt of titles, and the
    /// likelihood of titles, each with its controls.
    LlmPath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Budget {
    /// Few epochs, and two settings per graph model: all rows within minutes.
    Small,
    /// Enough epochs for each system to converge.
    Full,
}

/// Runs `glta reproduce`.
pub fn run(args: &ReproduceArgs) -> ExitCode {
    exit_on_ranks(|ranks| on_ranks(args, ranks))
}

fn on_ranks(args: &ReproduceArgs, ranks: &Ranks) -> Result<()> {
    let flags = ExperimentFlags {
        controls: true,
        contrastive: true,
        ablations: true,
        resume: true,
        ..args.flags.clone()
    };
    let source = root_first(ranks, || read(args))?;
    if args.experiment == What::LlmPath {
        return llm_path(args, ranks, &source);
    }
    let mut config = flags.resolve(source.density, |config| {
        (source.adapt)(config);
        if args.budget == Budget::Small {
            reduce_budget(config);
        }
    })?;
    add_columns(&mut config);
    let record = experiment::run_configured(ranks, &source, &flags, config, |_| Ok(()))?;
    if flags.stats || !ranks.is_root() {
        return Ok(());
    }
    let printed = match args.dataset {
        Kind::Movielens => paper::MOVIELENS,
        Kind::Amazon => paper::AMAZON,
        Kind::Goodreads => paper::GOODREADS,
    };
    outln!("\n{}", record.paper_report(&printed)?);
    Ok(())
}

/// Adds the columns that the reports need.
fn add_columns(config: &mut ExperimentConfig) {
    for metric in ProtocolConfig::default().metrics {
        if !config.protocol.metrics.contains(&metric) {
            config.protocol.metrics.push(metric);
        }
    }
}

/// Runs one seed after the other. Stops after the first seed for which no form gains enough over
/// the linear model and every control.
fn llm_path(args: &ReproduceArgs, ranks: &Ranks, source: &DataSource) -> Result<()> {
    if args.budget == Budget::Small {
        return Err("--budget small: the experiment llm-path has one budget".into());
    }
    let flags = ExperimentFlags { resume: true, ..args.flags.clone() };
    let mut config = flags.resolve(source.density, |config| {
        (source.adapt)(config);
        // The states of late layers contain more information than those of early layers.
        config.glta.llm.layers = None;
    })?;
    config.run.llm_path = true;
    if config.run.only.is_empty() {
        config.run.only = LlmPathConfig::systems();
    }
    add_columns(&mut config);
    let tflops = args.tflops.unwrap_or(if flags.device == "cpu" { 0.1 } else { 200.0 });
    if !(tflops > 0.0 && tflops.is_finite()) {
        return Err(format!("--tflops {tflops}: not a positive number").into());
    }
    let seeds = config.run.seeds.clone();
    for (n, &seed) in seeds.iter().enumerate() {
        config.run.seeds = vec![seed];
        let cost = config.clone();
        let record = experiment::run_configured(ranks, source, &flags, config.clone(), |llm| {
            let cost = LlmPathCost::of(&source.dataset, &cost, llm)?;
            if ranks.is_root() {
                outln!(
                    "language model, seed {seed} ({} of {}), pretrained and random weights: {cost}; \
                     {:.1} minutes at {tflops} TFLOP/s",
                    n + 1,
                    seeds.len(),
                    cost.minutes(tflops),
                );
            }
            Ok(())
        })?;
        if flags.stats || !ranks.is_root() {
            // Only rank 0 has the result on which the stopping rule depends.
            continue;
        }
        let verdict = record.llm_path_verdict()?;
        outln!("\n{}", verdict.report);
        if verdict.gains.is_empty() && n + 1 < seeds.len() && ranks.size() == 1 {
            outln!("stopped after seed {seed}, because no form gains anything");
            break;
        }
    }
    Ok(())
}

fn read(args: &ReproduceArgs) -> Result<DataSource> {
    let data = args.flags.data.as_deref();
    match args.dataset {
        Kind::Movielens => datasets::movielens(data, &args.movielens),
        Kind::Amazon => datasets::amazon(data, &args.amazon, args.k_core),
        Kind::Goodreads => datasets::goodreads(data, &args.goodreads, args.k_core),
    }
}

fn reduce_budget(config: &mut ExperimentConfig) {
    config.glta.graph.epochs = 60;
    config.glta.item_stage.train.epochs = 2;
    config.glta.user_stage.train.epochs = 2;
    config.baselines.contrastive_epochs = Some(45);
    config.baselines.graph_l2 = vec![1e-3, 1e-2];
    config.baselines.temperatures = vec![0.15, 0.2];
}
