//! The program `glta`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "serve")]
use glta_cli::serve::{self, ServeArgs};
use glta_cli::{
    ask::{self, ExplainArgs, RecommendArgs, SimilarArgs},
    demo::{self, DemoArgs},
    evaluate::{self, EvaluateArgs},
    fit::{self, FitArgs},
    gptq::{self, GptqArgs},
    lightgcn::{self, LightgcnArgs},
    logging,
    reproduce::{self, ReproduceArgs},
};

/// Train, evaluate and serve recommenders with a frozen language model.
#[derive(Parser)]
#[command(name = "glta", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands of `glta`.
#[derive(Subcommand)]
enum Command {
    /// Fit a recommender on your own tables: interactions, and items with texts.
    Fit(Box<FitArgs>),
    /// Recommend items to a known user, or to any user with the given items.
    Recommend(RecommendArgs),
    /// Find similar items.
    Similar(SimilarArgs),
    /// Show how much each of a user's items contributes to an item's score.
    Explain(ExplainArgs),
    /// Run the whole method on a generated shop, without downloads.
    Demo(DemoArgs),
    /// Print the tables of a run, or measure ranked lists.
    Evaluate(EvaluateArgs),
    /// Run every system of the paper's tables on one data set.
    Reproduce(Box<ReproduceArgs>),
    /// Inspect, verify, run and make GPTQ checkpoints of LLaMA models.
    Gptq(GptqArgs),
    /// Train and evaluate LightGCN on files of interactions.
    Lightgcn(LightgcnArgs),
    /// Serve recommendations over HTTP.
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
}

fn main() -> ExitCode {
    logging::init();
    match Cli::parse().command {
        Command::Fit(args) => fit::run(&args),
        Command::Recommend(args) => ask::recommend(&args),
        Command::Similar(args) => ask::similar(&args),
        Command::Explain(args) => ask::explain(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Gptq(args) => gptq::run(&args),
        Command::Lightgcn(args) => lightgcn::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_of_all_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
