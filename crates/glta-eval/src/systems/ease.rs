use std::sync::Arc;
use std::time::Instant;

use glta_core::search;
use glta_linear::{Ease, EaseConfig};

use crate::error::BoxError;
use crate::seed::Seed;
use crate::system::{Fitted, System};
use crate::{Error, Result};

/// EASE under the L2 weight that is best on validation data.
pub(crate) struct TunedEase {
    pub(crate) ease: Arc<Ease>,
    pub(crate) l2: f64,
    /// Seconds of one weight.
    seconds: f64,
}

impl Seed<'_> {
    pub(crate) fn ease(&mut self) -> Result<Arc<TunedEase>> {
        if let Some(tuned) = self.shared.get() {
            return Ok(tuned);
        }
        let split = self.split();
        let grid = &self.config().baselines.ease_l2;
        let started = Instant::now();
        let mut tried = 0;
        let found = search(grid, |&l2| -> Result<_> {
            self.advance("EASE", tried, grid.len() as u64, "settings")?;
            tried += 1;
            let ease = Ease::fit(&split.train, &EaseConfig { l2, ..EaseConfig::default() })?;
            Ok((self.validation(&ease)?, ease))
        })?;
        let seconds = started.elapsed().as_secs_f64() / grid.len() as f64;
        let (best, ease) = found.best.ok_or_else(|| no_score("EASE"))?;
        let tuned = TunedEase { ease: Arc::new(ease), l2: grid[best], seconds };
        Ok(self.shared.put(tuned))
    }
}

/// No setting of a system has a score that is a number.
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
        let fitted = Fitted::new(Arc::clone(&tuned.ease));
        Ok(fitted
            .setting("l2", tuned.l2)
            .setting("tried", seed.config().baselines.ease_l2.len())
            .seconds(tuned.seconds))
    }
}
