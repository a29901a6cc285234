//! The contrastive graph models as systems.

use glta_baselines::{Contrastive, ContrastiveConfig, NodeTexts};

use super::trials::Trials;
use crate::error::BoxError;
use crate::seed::Seed;
use crate::system::{Fitted, System};

/// A contrastive model. The L2 weight is chosen on validation data from the values in
/// `baselines.graph_l2`.
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
        let base = ContrastiveConfig {
            seed: seed.number(),
            // Small enough for 16 steps per epoch, but at least 512.
            batch_size: (split.train.len() / 16).clamp(512, self.config.batch_size),
            epochs: baselines.contrastive_epochs.unwrap_or(self.config.epochs),
            ..self.config.clone()
        };
        let of = |&l2: &f32| (l2, ContrastiveConfig { l2: f64::from(l2), ..base.clone() });
        let trials = Trials {
            system: self.name,
            setting: "l2",
            candidates: baselines.graph_l2.iter().map(of).collect(),
            epochs: base.epochs,
            texts: given.items.into_iter().chain(given.users).collect(),
        };
        let mut fitted = trials.fit(seed, |config, progress| {
            let model = Contrastive::new(config.clone())?;
            Ok(model.train_with(&split.train, Some(&split.valid), given, progress)?)
        })?;
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
