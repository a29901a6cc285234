use glta_metrics::Scorer;
use serde::Serialize;

use crate::error::BoxError;
use crate::row::{Curve, Settings};
use crate::seed::Seed;

/// A recommender that an [`Experiment`](crate::Experiment) fits and measures.
///
/// ```
/// use glta_data::Interactions;
/// use glta_eval::{BoxError, Fitted, Seed, System};
/// use glta_metrics::{Scorer, ScorerError};
/// use ndarray::ArrayViewMut2;
///
/// /// Recommends the items with the highest ids.
/// struct Newest(usize);
///
/// impl Scorer for Newest {
///     fn n_items(&self) -> usize {
///         self.0
///     }
///
///     fn score(&self, _: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
///         out.indexed_iter_mut().for_each(|((_, item), score)| *score = item as f32);
///         Ok(())
///     }
/// }
///
/// struct NewestSystem;
///
/// impl System for NewestSystem {
///     fn name(&self) -> &str {
///         "Newest"
///     }
///
///     fn fit(&self, seed: &mut Seed<'_>) -> Result<Fitted, BoxError> {
///         Ok(Fitted::new(Newest(seed.split().train.n_items())))
///     }
/// }
/// ```
pub trait System {
    /// Returns the name of the system's rows, which must be unique.
    fn name(&self) -> &str;

    /// Fits the system on the training part of a seed's split. Choose settings on the validation
    /// part, for example with [`Seed::validation`], and do not use the test part.
    ///
    /// # Errors
    /// Returns any error. An error ends the experiment; finished rows are kept.
    fn fit(&self, seed: &mut Seed<'_>) -> Result<Fitted, BoxError>;
}

/// A fitted system: a scorer, with facts about the fit that are recorded in the row.
pub struct Fitted {
    pub(crate) scorer: Box<dyn Scorer>,
    pub(crate) settings: Settings,
    pub(crate) validation: Option<f64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) epochs: usize,
    pub(crate) curve: Option<Curve>,
}

impl Fitted {
    /// Creates a fitted system that ranks by the scores of `scorer`.
    pub fn new(scorer: impl Scorer + 'static) -> Self {
        Self {
            scorer: Box::new(scorer),
            settings: Settings::new(),
            validation: None,
            seconds: None,
            epochs: 0,
            curve: None,
        }
    }

    /// Records the value of a setting that the fit has chosen.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Serialize) -> Self {
        // Convert through text, so that an f32 keeps its few digits. NaN becomes null.
        let text = serde_json::to_string(&value).unwrap_or_default();
        self.settings.insert(name.to_owned(), serde_json::from_str(&text).unwrap_or_default());
        self
    }

    /// Sets N@10 on the validation items. The experiment computes N@10 itself if the value is
    /// `None`.
    #[must_use]
    pub fn validation(mut self, validation: Option<f64>) -> Self {
        self.validation = validation;
        self
    }

    /// Sets the training time in seconds; without it the duration of [`System::fit`] is recorded.
    /// After a search over settings, give the time of one setting.
    #[must_use]
    pub fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// Sets the number of epochs.
    #[must_use]
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the learning curve and the number of epochs.
    #[must_use]
    pub fn curve(mut self, curve: Curve) -> Self {
        self.epochs = curve.losses.len();
        self.curve = Some(curve);
        self
    }
}
