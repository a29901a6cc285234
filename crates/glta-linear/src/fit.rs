//! Fitting a linear model.

use glta_core::{Progress, Silent};
use glta_data::Interactions;
use ndarray::ArrayView2;

use crate::choose::{LinearStep, Solver};
use crate::ease::check_items;
use crate::model::similarities;
use crate::temperature::temperature;
use crate::{LinearConfig, LinearModel, Result};

impl LinearModel {
    /// Chooses the settings one after the other: `l2` and the texts' weight in the
    /// Gram matrix, then the weights of neighbours and popularity. Without
    /// validation items the middle values of the first two lists are taken, and
    /// neighbours and popularity do not count.
    ///
    /// `vectors`, `(items, dim)`, are whitened text vectors, zeros for an item without
    /// a text. `seed` draws the new items and the users of the temperature.
    ///
    /// # Errors
    /// Bad settings, too many items, vectors that do not fit, a matrix that cannot be
    /// inverted.
    pub fn fit(
        train: &Interactions,
        valid: Option<&Interactions>,
        vectors: Option<ArrayView2<'_, f32>>,
        config: &LinearConfig,
        seed: u64,
    ) -> Result<Self> {
        Self::fit_with(train, valid, vectors, config, seed, &mut Silent)
    }

    /// [`fit`](Self::fit) that reports every setting that it begins to fit.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit), and [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn fit_with(
        train: &Interactions,
        valid: Option<&Interactions>,
        vectors: Option<ArrayView2<'_, f32>>,
        config: &LinearConfig,
        seed: u64,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Self> {
        config.validate()?;
        // Before the similarities of the text vectors, a matrix over all items too.
        let bytes = if vectors.is_some() { 20.0 } else { 16.0 };
        check_items(train.n_items(), config.max_items, bytes)?;
        let valid = valid.filter(|valid| !valid.is_empty());
        let text = vectors.map(|v| similarities(v, train)).transpose()?;
        let growing = valid.filter(|_| config.new_items > 0.0);
        let mut total = match valid {
            None => 1,
            Some(_) => config.l2.len() + vectors.map_or(0, |_| config.text.len() - 1),
        };
        total += usize::from(growing.is_some());
        let mut solver = Solver { vectors, text, config, progress, done: 0, total };
        let mut model = match growing {
            Some(valid) => {
                let (known, new) = train.split_off_items(config.new_items, seed)?;
                let chosen = solver.choose(&known, Some(&valid.union(&new)?))?.report;
                let mut model = solver.solve(train, chosen)?;
                model.report.validation = model.validation(train, valid)?;
                model
            }
            None => solver.choose(train, valid)?,
        };
        model.report.temperature = temperature(&model, train, seed)?;
        Ok(model)
    }
}
