//! The contrastive graph models.

use std::sync::Arc;
use std::time::Instant;

use glta_baselines::{Contrastive, ContrastiveConfig, ContrastiveEpoch, NodeTexts};
use glta_core::search;

use super::ease::no_score;
use super::lightgcn::Nodes;
use crate::Result;
use crate::error::BoxError;
use crate::row::Curve;
use crate::seed::Seed;
use crate::system::{Fitted, System};

/// A contrastive model with the L2 weight that is best on validation data, from as many values as
/// for LightGCN.
pub(crate) struct ContrastiveSystem {
    name: &'static str,
    config: ContrastiveConfig,
    user_texts: bool,
}

pub(crate) fn all() -> [ContrastiveSystem; 5] {
    let system = |name, config, user_texts| ContrastiveSystem { name, config, user_texts };
    [
        system("HCCF", ContrastiveConfig::hccf(), false),
        system("LightGCN+", ContrastiveConfig::lightgcn_plus(), false),
        system("HCCF+", ContrastiveConfig::hccf_plus(), false),
        system("RLMRec-Con", ContrastiveConfig::rlmrec_con(), true),
        system("RLMRec-Gen", ContrastiveConfig::rlmrec_gen(), true),
    ]
}

impl ContrastiveSystem {
    pub(crate) fn reads_texts(&self) -> bool {
        self.config.text_weight > 0.0
    }
}

impl System for ContrastiveSystem {
    fn name(&self) -> &str {
        self.name
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let texts = self.reads_texts().then(|| seed.node_vectors()).transpose()?;
        let texts = texts.as_deref();
        let given = NodeTexts {
            items: texts.map(|t| t.items.view()),
            users: texts.filter(|_| self.user_texts).map(|t| t.users.view()),
        };
        let split = seed.split();
        let baselines = &seed.config().baselines;
        let grid = &baselines.graph_l2;
        let started = Instant::now();
        let mut tried = 0;
        let found = search(grid, |&l2| -> Result<_> {
            tried += 1;
            let config = ContrastiveConfig {
                seed: seed.number(),
                // At least about sixteen steps per epoch.
                batch_size: (split.train.len() / 16).clamp(512, self.config.batch_size),
                epochs: baselines.contrastive_epochs.unwrap_or(self.config.epochs),
                l2: f64::from(l2),
                ..self.config.clone()
            };
            let work = format!("{} {tried}/{}", self.name, grid.len());
            let epochs = config.epochs;
            let progress = &mut *seed.progress;
            let mut report = |epoch: &ContrastiveEpoch| {
                Seed::epoch(progress, &work, (epoch.epoch, epochs), epoch.loss, epoch.validation)
            };
            let (train, valid) = (&split.train, Some(&split.valid));
            let model = Contrastive::new(config)?;
            let trained = model.train_with(train, valid, given, &mut report)?;
            let valid = seed.validation(&trained.embeddings.scorer())?;
            seed.note(&format!("{}, l2 {l2}: valid N@10 {valid:.4}", self.name))?;
            Ok((valid, trained))
        })?;
        let seconds = started.elapsed().as_secs_f64() / grid.len() as f64;
        let (best, trained) = found.best.ok_or_else(|| no_score(self.name))?;
        let mut fitted = Fitted::new(Nodes(Arc::new(trained.embeddings)))
            .setting("l2", grid[best])
            .setting("tried", grid.len())
            .seconds(seconds)
            .curve(Curve::of(trained.history.iter().map(|e| (e.loss, e.validation))));
        if let Some(texts) = texts {
            fitted = fitted.setting("encoder", &texts.encoder);
            if let Some(layers) = texts.layers {
                fitted = fitted.setting("layers", layers).setting("whitening", 1.0);
            }
            if self.user_texts {
                fitted = fitted.setting("user_texts", texts.users_from);
            }
        }
        Ok(fitted)
    }
}
