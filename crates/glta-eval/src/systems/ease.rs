use std::sync::Arc;
use std::time::Instant;

use glta_core::search;
use glta_linear::{Ease, EaseConfig, EaseGrid, Form, LinearConfig, LinearStage, LinearStep};

use crate::error::BoxError;
use crate::event::Event;
use crate::seed::{Seed, validation};
use crate::system::{Fitted, System};
use crate::{Error, Result};

/// EASE with the form and the L2 weight that are best on validation data, and facts about the
/// search.
pub(crate) struct TunedEase {
    pub(crate) ease: Arc<Ease>,
    pub(crate) form: Form,
    pub(crate) l2: f64,
    /// Number of settings that were tried.
    tried: usize,
    /// The reason why the requested dense form was not tried; `None` in all other cases.
    pub(crate) left_out: Option<String>,
    /// Mean time per setting, in seconds.
    seconds: f64,
}

impl Seed<'_> {
    /// Returns a configuration of EASE with the size limits of the linear model.
    pub(crate) fn ease_config(&self) -> EaseConfig {
        let LinearConfig { max_items, rows, text_neighbours, .. } = self.config().glta.linear;
        EaseConfig { max_items, rows, text_neighbours, ..EaseConfig::default() }
    }

    pub(crate) fn ease(&mut self) -> Result<Arc<TunedEase>> {
        if let Some(tuned) = self.shared.get() {
            return Ok(tuned);
        }
        let split = self.split();
        let (forms, left_out) = self.config().glta.linear.forms(&split.train)?;
        let grid = &self.config().baselines.ease_l2;
        let settings: Vec<(Form, f64)> =
            forms.iter().flat_map(|&form| grid.iter().map(move |&l2| (form, l2))).collect();
        let started = Instant::now();
        let (mut tried, columns) = (0, split.train.n_items() as u64);
        let mut fits = EaseGrid::new(&split.train, &self.ease_config())?;
        let progress = &mut *self.progress;
        let found = search(&settings, |&(form, l2)| -> Result<_> {
            let ease = fits.fit(form, l2, &mut |step: &LinearStep| {
                let LinearStep { stage, done, total, .. } = *step;
                progress.report(&match stage {
                    LinearStage::CoOccurrences => {
                        Event::Work { work: "EASE: co-occurrences", done, total, note: "items" }
                    }
                    _ => Event::Work {
                        work: "EASE",
                        done: tried * columns + done,
                        total: settings.len() as u64 * columns,
                        note: "columns of all settings",
                    },
                })
            })?;
            tried += 1;
            Ok((validation(&ease, split)?, ease))
        })?;
        let seconds = started.elapsed().as_secs_f64() / settings.len() as f64;
        let (best, ease) = found.best.ok_or_else(|| no_score("EASE"))?;
        let (form, l2) = settings[best];
        let (ease, tried) = (Arc::new(ease), settings.len());
        Ok(self.shared.put(TunedEase { ease, form, l2, tried, left_out, seconds }))
    }
}

/// Returns the error for a search in which no setting has a finite validation score.
pub(crate) fn no_score(system: &str) -> Error {
    let problem = format!("no setting of {system} has a validation score");
    Error::Config { field: "baselines", problem }
}

pub(crate) struct EaseSystem;

impl System for EaseSystem {
    fn name(&self) -> &str {
        "EASE"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let tuned = seed.ease()?;
        let fitted = Fitted::new(Arc::clone(&tuned.ease))
            .setting("form", tuned.form)
            .setting("l2", tuned.l2)
            .setting("tried", tuned.tried)
            .seconds(tuned.seconds);
        Ok(match &tuned.left_out {
            None => fitted,
            Some(problem) => fitted.setting("left_out", problem),
        })
    }
}
