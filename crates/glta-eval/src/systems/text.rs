//! Text neighbours as systems: alone, and with EASE.

use std::sync::Arc;
use std::time::Instant;

use glta_align::{ItemEncoder, ItemVectors};
use glta_core::search;
use glta_data::Split;
use glta_linear::{
    Ease, EaseConfig, EaseText, LinearStep, TextKnn, TextKnnConfig, TextNeighbours, WhitenConfig,
};
use glta_metrics::{Scorer, ScorerError};
use ndarray::ArrayViewMut2;

use super::ease::{TunedEase, no_score};
use crate::error::BoxError;
use crate::event::Event;
use crate::reason::Reason;
use crate::seed::{Seed, validation};
use crate::system::{Fitted, System};
use crate::{Error, Result};

/// Text-kNN with the settings that are best on validation data. If the settings of the linear model
/// are chosen for new items (`linear.new_items`), the validation data of text-kNN contain new items
/// too.
pub(crate) struct TunedKnn {
    /// The model fitted on all training items.
    knn: Arc<TextKnn>,
    strength: f64,
    power: i32,
    /// The split with new items on which settings were chosen, and the model fitted on it; `None`
    /// if settings were chosen on the split of the seed.
    with_new_items: Option<(Split, TextKnn)>,
    encoders: Vec<String>,
    left_out: Vec<ItemEncoder>,
    seconds: f64,
}

impl Seed<'_> {
    fn text_knn(&mut self) -> Result<Arc<TunedKnn>> {
        if let Some(tuned) = self.shared.get() {
            return Ok(tuned);
        }
        let started = Instant::now();
        let vectors = self.item_vectors()?;
        if vectors.is_empty() {
            let reason = Reason::NoEncoder.to_string();
            return Err(Error::CannotRun { system: self.system.clone(), reason });
        }
        let read = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let (split, config) = (self.split(), self.config());
        let new_items = config.glta.linear.new_items;
        let grown = (new_items > 0.0).then(|| split.with_new_items(new_items, self.number()));
        let grown = grown.transpose()?;
        let tuned_on = grown.as_ref().unwrap_or(split);
        let baselines = &config.baselines;
        let mut settings = Vec::new();
        for &strength in &baselines.whitening {
            settings.extend(baselines.powers.iter().map(|&power| (strength, power)));
        }
        let mut last: Option<(f64, Arc<TextNeighbours>)> = None;
        let found = search(&settings, |&(strength, power)| -> Result<_> {
            let near = match &last {
                Some((known, near)) if *known == strength => Arc::clone(near),
                _ => Arc::new(self.neighbours(&vectors, strength)?),
            };
            last = Some((strength, Arc::clone(&near)));
            let knn = TextKnn::new(&near, &tuned_on.train, power)?;
            Ok((validation(&knn, tuned_on)?, (knn, near)))
        })?;
        let (best, (tuned, near)) = found.best.ok_or_else(|| no_score("text-kNN"))?;
        let (strength, power) = settings[best];
        let (knn, with_new_items) = match grown {
            None => (tuned, None),
            Some(grown) => (TextKnn::new(&near, &split.train, power)?, Some((grown, tuned))),
        };
        let seconds = read + started.elapsed().as_secs_f64() / settings.len() as f64;
        let encoders = vectors.iter().map(|vectors| vectors.name().to_owned()).collect();
        let left_out = self.left_out(&self.config().glta)?;
        let knn = Arc::new(knn);
        let tuned = TunedKnn { knn, strength, power, with_new_items, encoders, left_out, seconds };
        Ok(self.shared.put(tuned))
    }

    /// Finds text neighbours by the concatenated vectors of all encoders, whitened with `strength`.
    fn neighbours(&mut self, vectors: &[ItemVectors], strength: f64) -> Result<TextNeighbours> {
        let config = WhitenConfig { strength, ..self.config().glta.item_text.whiten.clone() };
        let (joined, _) = ItemVectors::join(vectors, &config)?;
        let most = TextKnnConfig::default().neighbours;
        let progress = &mut *self.progress;
        let report = &mut |step: &LinearStep| {
            let LinearStep { done, total, .. } = *step;
            progress.report(&Event::Work { work: "text neighbours", done, total, note: "items" })
        };
        Ok(TextNeighbours::find_with(&joined, most, report)?)
    }
}

impl TunedKnn {
    fn settings(&self, fitted: Fitted) -> Fitted {
        read_by(fitted, &self.encoders, &self.left_out)
            .setting("whitening", self.strength)
            .setting("power", self.power)
    }
}

/// Records the encoders that a row uses, and the encoders that were not available.
pub(crate) fn read_by(fitted: Fitted, encoders: &[String], left_out: &[ItemEncoder]) -> Fitted {
    let fitted = fitted.setting("encoders", encoders);
    match left_out {
        [] => fitted,
        left_out => fitted.setting("encoders_left_out", left_out),
    }
}

pub(crate) struct TextKnnSystem;

impl System for TextKnnSystem {
    fn name(&self) -> &str {
        "text-kNN"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let tuned = seed.text_knn()?;
        let fitted = Fitted::new(Arc::clone(&tuned.knn));
        Ok(tuned.settings(fitted).seconds(tuned.seconds))
    }
}

pub(crate) struct EaseTextSystem;

impl System for EaseTextSystem {
    fn name(&self) -> &str {
        "EASE + text"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let (ease, knn) = (seed.ease()?, seed.text_knn()?);
        let started = Instant::now();
        let weights = &seed.config().baselines.text_weights;
        let found = match &knn.with_new_items {
            None => search(weights, |&weight| -> Result<_> {
                let both = EaseText::new(&ease.ease, &knn.knn, weight)?;
                Ok((seed.validation(&both)?, ()))
            })?,
            Some((grown, tuned)) => {
                let config = EaseConfig { l2: ease.l2, form: ease.form, ..seed.ease_config() };
                let tuned_ease = Ease::fit(&grown.train, &config)?;
                search(weights, |&weight| -> Result<_> {
                    let both = EaseText::new(&tuned_ease, tuned, weight)?;
                    Ok((validation(&both, grown)?, ()))
                })?
            }
        };
        let weight = weights[found.best.ok_or_else(|| no_score("EASE + text"))?.0];
        // The time in addition to that of EASE and text-kNN.
        let seconds = started.elapsed().as_secs_f64() / weights.len() as f64;
        // Drop values that no later system needs.
        seed.shared.remove::<TunedEase>();
        seed.shared.remove::<TunedKnn>();
        let (l2, form) = (ease.l2, ease.form);
        let both = Both { ease: Arc::clone(&ease.ease), knn: Arc::clone(&knn.knn), weight };
        let fitted = Fitted::new(both).setting("form", form).setting("l2", l2);
        let mut fitted = fitted.setting("weight", weight);
        if let Some(problem) = &ease.left_out {
            fitted = fitted.setting("left_out", problem);
        }
        Ok(knn.settings(fitted).seconds(seconds))
    }
}

/// A scorer like [`EaseText`] that owns its parts.
struct Both {
    ease: Arc<Ease>,
    knn: Arc<TextKnn>,
    weight: f32,
}

impl Scorer for Both {
    fn n_items(&self) -> usize {
        self.ease.n_items()
    }

    fn score(
        &self,
        users: &[u32],
        out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        EaseText::new(&self.ease, &self.knn, self.weight)?.score(users, out)
    }
}
