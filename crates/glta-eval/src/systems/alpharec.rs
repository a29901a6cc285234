use std::sync::Arc;
use std::time::Instant;

use glta_align::ItemVectors;
use glta_baselines::{AlphaRec, AlphaRecConfig, ContrastiveEpoch};
use glta_core::search;

use super::ease::no_score;
use super::lightgcn::Nodes;
use super::text::read_by;
use crate::error::BoxError;
use crate::reason::Reason;
use crate::row::Curve;
use crate::seed::Seed;
use crate::system::{Fitted, System};
use crate::{Error, Result};

const NAME: &str = "AlphaRec";

/// AlphaRec over the text vectors of the linear model, with the temperature that is best on
/// validation data.
pub(crate) struct AlphaRecSystem;

impl System for AlphaRecSystem {
    fn name(&self) -> &str {
        NAME
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let vectors = seed.item_vectors()?;
        if vectors.is_empty() {
            let (system, reason) = (NAME.to_owned(), Reason::NoEncoder.to_string());
            return Err(Error::CannotRun { system, reason }.into());
        }
        let encoders: Vec<String> = vectors.iter().map(|v| v.name().to_owned()).collect();
        let left_out = seed.left_out(&seed.config().glta)?;
        let (texts, _) = ItemVectors::join(&vectors, &seed.config().glta.item_text.whiten)?;
        let split = seed.split();
        let baselines = &seed.config().baselines;
        let grid = &baselines.temperatures;
        let started = Instant::now();
        let mut tried = 0;
        let found = search(grid, |&temperature| -> Result<_> {
            tried += 1;
            let base = AlphaRecConfig::default();
            let config = AlphaRecConfig {
                seed: seed.number(),
                // At least about sixteen steps per epoch.
                batch_size: (split.train.len() / 16).clamp(512, base.batch_size),
                epochs: baselines.contrastive_epochs.unwrap_or(base.epochs),
                temperature,
                ..base
            };
            let work = format!("{NAME} {tried}/{}", grid.len());
            let epochs = config.epochs;
            let progress = &mut *seed.progress;
            let mut report = |epoch: &ContrastiveEpoch| {
                Seed::epoch(progress, &work, (epoch.epoch, epochs), epoch.loss, epoch.validation)
            };
            let (train, valid) = (&split.train, Some(&split.valid));
            let model = AlphaRec::new(config)?;
            let trained = model.train_with(train, valid, texts.view(), &mut report)?;
            let valid = seed.validation(&trained.embeddings.scorer())?;
            seed.note(&format!("{NAME}, temperature {temperature}: valid N@10 {valid:.4}"))?;
            Ok((valid, trained))
        })?;
        let seconds = started.elapsed().as_secs_f64() / grid.len() as f64;
        let (best, trained) = found.best.ok_or_else(|| no_score(NAME))?;
        let fitted = Fitted::new(Nodes(Arc::new(trained.embeddings)))
            .setting("temperature", grid[best])
            .setting("tried", grid.len())
            .seconds(seconds)
            .curve(Curve::of(trained.history.iter().map(|e| (e.loss, e.validation))));
        Ok(read_by(fitted, &encoders, &left_out))
    }
}
