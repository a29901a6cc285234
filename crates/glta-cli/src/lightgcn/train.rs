//! Trains LightGCN with one configuration.

use std::error::Error as StdError;
use std::path::Path;

use glta_comm::Communicator;
use glta_data::Split;
use glta_graph::{EpochReport, Error, LightGcn, LightGcnConfig, NodeEmbeddings, Trained};

use super::args::LightgcnArgs;
use crate::output::errln;
use crate::progress::Reporter;
use crate::ranks::Ranks;

/// The data and settings that all trainings on one split share.
pub(super) struct Training<'a> {
    pub(super) args: &'a LightgcnArgs,
    pub(super) ranks: &'a Ranks,
    pub(super) split: &'a Split,
    /// Initial layer-0 embeddings, which replace the random ones.
    pub(super) start: Option<&'a NodeEmbeddings>,
}

impl Training<'_> {
    /// Trains on all ranks. With validation data, training can stop early.
    pub(super) fn train(&self, config: &LightGcnConfig) -> Result<Trained, Error> {
        let Self { args, ranks, split, start } = *self;
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
            reporter.advance("epoch", epoch.epoch as u64, config.epochs as u64, &note(epoch))
        };
        let trained = model.train_on(&**ranks, start, &split.train, watched, &mut progress);
        reporter.finish();
        trained
    }
}

/// Describes an epoch in words, for the progress line.
fn note(epoch: &EpochReport) -> String {
    let mut note = format!("loss {:.5}, {:.2} s", epoch.loss, epoch.seconds);
    if epoch.validation.is_some() {
        let metric = |name: &str| epoch.metrics.get(name).copied().unwrap_or_default();
        note += &format!(", N@10 {:.4} R@20 {:.4}", metric("N@10"), metric("R@20"));
        note += if epoch.best { " *" } else { "" };
    }
    note
}

/// Saves the layer-0 embeddings of a training after Ctrl-C to a separate file, so that an existing
/// complete run does not change. Returns the error that ends the program.
pub(super) fn stopped(
    ranks: &Ranks,
    out: &Path,
    trained: &Trained,
) -> Box<dyn StdError + Send + Sync> {
    let save = || -> crate::Result<()> {
        if ranks.is_root() {
            let path = out.join("stopped.safetensors");
            trained.layer0.save(&path)?;
            let epochs = trained.history.len();
            errln!("{epochs} epochs are saved; continue with --start {}", path.display());
        }
        // A rank that exits ends the others, so all ranks wait until rank 0 has written.
        ranks.barrier()?;
        Ok(())
    };
    save().err().unwrap_or_else(|| "stopped".into())
}
