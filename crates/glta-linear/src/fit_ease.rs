//! Fits EASE with one or several settings.

use std::sync::Arc;

use glta_core::{Progress, Silent};
use glta_data::Interactions;

use crate::problem::{Limits, Problem};
use crate::progress::Reporter;
use crate::{Ease, EaseConfig, Error, Form, LinearStep, Result, TextNeighbours, TextVectors};

/// A fit of EASE with several settings on one training set. Common parts, such as the counts of
/// co-occurring items, are computed once.
///
/// ```
/// use glta_core::Silent;
/// use glta_data::Interactions;
/// use glta_linear::{EaseConfig, EaseGrid, Form};
///
/// let train = Interactions::from_pairs(3, 3, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)])?;
/// let mut grid = EaseGrid::new(&train, &EaseConfig::default())?;
/// for l2 in [1.0, 10.0] {
///     let ease = grid.fit(Form::Dense, l2, &mut Silent)?;
///     assert!(ease.score_items(&[0])[1] > 0.0);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EaseGrid {
    problem: Problem,
    config: EaseConfig,
}

impl EaseGrid {
    /// Creates a grid for a training set, with the sizes of `config`.
    ///
    /// # Errors
    /// Returns an error for invalid settings.
    pub fn new(train: &Interactions, config: &EaseConfig) -> Result<Self> {
        config.validate()?;
        let EaseConfig { max_items, rows, text_neighbours, .. } = *config;
        let limits = Limits { max_items, rows, text_neighbours };
        let problem = Problem::new(train, None, None, limits)?;
        Ok(Self { problem, config: config.clone() })
    }

    /// Fits EASE with one setting.
    ///
    /// # Errors
    /// Returns an error for invalid settings, too many items for the dense form, or a matrix that
    /// cannot be inverted, and [`Error::Cancelled`].
    pub fn fit(
        &mut self,
        form: Form,
        l2: f64,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Ease> {
        EaseConfig { form, l2, ..self.config.clone() }.validate()?;
        self.problem.ease(form, l2, 0.0, &mut Reporter::new(progress))
    }
}

impl Ease {
    /// Fits EASE.
    ///
    /// # Errors
    /// Returns an error for invalid settings, too many items for the dense form, or a matrix that
    /// cannot be inverted.
    pub fn fit(train: &Interactions, config: &EaseConfig) -> Result<Self> {
        Self::fit_with(train, None, config, &mut Silent)
    }

    /// Fits EASE with side information (Jeunen, Van Balen and Goethals 2020, "Closed-Form Models
    /// for Collaborative Filtering with Side-Information", the collective form): `P = (XᵀX + αTTᵀ +
    /// λI)⁻¹`, with `weight` for `α`.
    ///
    /// The dimensions of the text vectors `T` act as additional users, so items without
    /// interactions get weights from their texts.
    ///
    /// # Errors
    /// Returns the errors of [`fit`](Self::fit), and an error for vectors of a different number of
    /// items or for a weight that is negative or not finite.
    pub fn fit_collective(
        train: &Interactions,
        vectors: &TextVectors,
        weight: f64,
        config: &EaseConfig,
    ) -> Result<Self> {
        Self::fit_with(train, Some((vectors, weight)), config, &mut Silent)
    }

    /// Fits EASE like [`fit`](Self::fit), or like [`fit_collective`](Self::fit_collective) with
    /// text vectors, and reports progress.
    ///
    /// # Errors
    /// Returns the errors of both, and [`Error::Cancelled`].
    pub fn fit_with(
        train: &Interactions,
        text: Option<(&TextVectors, f64)>,
        config: &EaseConfig,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Self> {
        config.validate()?;
        let weight = text.map_or(0.0, |(_, weight)| weight);
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(Error::Config {
                system: "EASE",
                field: "weight of the texts",
                problem: format!("{weight} is neither zero nor a positive number"),
            });
        }
        let text = text.map(|(vectors, _)| vectors);
        if let Some(text) = text {
            text.check(train.n_items())?;
        }
        let near = match (text, config.form) {
            (Some(text), Form::Local { .. }) if weight > 0.0 => {
                Some(TextNeighbours::find_with(text, config.text_neighbours, progress)?)
            }
            _ => None,
        };
        let EaseConfig { max_items, rows, text_neighbours, .. } = *config;
        let limits = Limits { max_items, rows, text_neighbours };
        let mut problem = Problem::new(train, text.cloned(), near.map(Arc::new), limits)?;
        problem.ease(config.form, config.l2, weight, &mut Reporter::new(progress))
    }
}
