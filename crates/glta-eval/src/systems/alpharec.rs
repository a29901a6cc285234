use glta_align::ItemVectors;
use glta_baselines::{AlphaRec, AlphaRecConfig};

use super::text::read_by;
use super::trials::Trials;
use crate::Error;
use crate::error::BoxError;
use crate::reason::Reason;
use crate::seed::Seed;
use crate::system::{Fitted, System};

const NAME: &str = "AlphaRec";

/// AlphaRec over the text vectors of the linear model. The temperature is chosen on validation
/// data.
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
        let base = AlphaRecConfig::default();
        let base = AlphaRecConfig {
            seed: seed.number(),
            // Small enough for 16 steps per epoch, but at least 512.
            batch_size: (split.train.len() / 16).clamp(512, base.batch_size),
            epochs: baselines.contrastive_epochs.unwrap_or(base.epochs),
            ..base
        };
        let of = |&temperature: &f64| (temperature, AlphaRecConfig { temperature, ..base.clone() });
        let trials = Trials {
            system: NAME,
            setting: "temperature",
            candidates: baselines.temperatures.iter().map(of).collect(),
            epochs: base.epochs,
            texts: vec![texts.view()],
        };
        let fitted = trials.fit(seed, |config, progress| {
            let model = AlphaRec::new(config.clone())?;
            Ok(model.train_with(&split.train, Some(&split.valid), texts.view(), progress)?)
        })?;
        Ok(read_by(fitted, &encoders, &left_out))
    }
}
