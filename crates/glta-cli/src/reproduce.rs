//! `glta reproduce`: the paper's result section on one data set.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use glta_comm::Communicator;
use glta_eval::{ExperimentConfig, ProtocolConfig, paper};

use crate::datasets::{self, AmazonFlags, DataSource, GoodreadsFlags, MovielensFlags};
use crate::flags::ExperimentFlags;
use crate::output::outln;
use crate::ranks::{Ranks, root_first};
use crate::{Result, exit_on_ranks, experiment};

/// Run all systems of the paper's tables and figures on one data set.
#[derive(Debug, Args)]
pub struct ReproduceArgs {
    #[command(flatten)]
    experiment: ExperimentFlags,
    /// Kind of the data set
    #[arg(long, help_heading = "Data")]
    dataset: Kind,
    /// Effort per system
    #[arg(long, default_value = "full", help_heading = "Settings")]
    budget: Budget,
    #[command(flatten)]
    movielens: MovielensFlags,
    #[command(flatten)]
    amazon: AmazonFlags,
    #[command(flatten)]
    goodreads: GoodreadsFlags,
    /// Amazon and Goodreads: remove users and items with fewer interactions, until none is left
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
enum Budget {
    /// Few epochs, and two settings per graph model: all rows within minutes
    Small,
    /// Enough for each system to converge
    Full,
}

/// Runs the experiment and writes the report.
pub fn run(args: &ReproduceArgs) -> ExitCode {
    exit_on_ranks(|ranks| on_ranks(args, ranks))
}

fn on_ranks(args: &ReproduceArgs, ranks: &Ranks) -> Result<()> {
    let flags = ExperimentFlags {
        controls: true,
        contrastive: true,
        ablations: true,
        resume: true,
        ..args.experiment.clone()
    };
    let source = root_first(ranks, || read(args))?;
    let mut config = flags.resolve(source.density, |config| {
        (source.adapt)(config);
        if args.budget == Budget::Small {
            reduce_budget(config);
        }
    })?;
    // The report needs these columns.
    for metric in ProtocolConfig::default().metrics {
        if !config.protocol.metrics.contains(&metric) {
            config.protocol.metrics.push(metric);
        }
    }
    let record = experiment::run_configured(ranks, &source, &flags, config)?;
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

fn read(args: &ReproduceArgs) -> Result<DataSource> {
    let data = args.experiment.data.as_deref();
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
