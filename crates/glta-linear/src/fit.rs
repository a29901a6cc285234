//! Fits a linear model, with or without a search over its settings.

use std::sync::Arc;

use glta_core::{Progress, Silent};
use glta_data::Interactions;

use crate::choose::{Chooser, most_settings};
use crate::problem::{Limits, Problem};
use crate::progress::Reporter;
use crate::temperature::temperature;
use crate::weigh::Measured;
use crate::{
    Form, LinearConfig, LinearModel, LinearReport, LinearStep, Result, TextNeighbours, TextVectors,
};

/// Exponent of the cosine of text neighbours.
pub(crate) const POWER: i32 = 3;

impl LinearModel {
    /// Fits a model. With validation data, it chooses the form, `l2` and the weight of the text
    /// vectors in the Gram matrix, each with the best weights of neighbours and popularity. Without
    /// validation data, it uses the first form and the middle values of `l2` and `text`, without
    /// neighbours and popularity.
    ///
    /// `text` contains whitened text vectors. `seed` determines the new items, the sample of
    /// validation users if there are more than 20,000, and the users for the temperature.
    ///
    /// # Errors
    /// Returns an error for invalid settings, too many items for the only form, vectors for a
    /// different number of items, or a matrix that cannot be inverted.
    pub fn fit(
        train: &Interactions,
        valid: Option<&Interactions>,
        text: Option<&TextVectors>,
        config: &LinearConfig,
        seed: u64,
    ) -> Result<Self> {
        Self::fit_with(train, valid, text, config, seed, &mut Silent)
    }

    /// Fits a model like [`fit`](Self::fit) and reports progress.
    ///
    /// # Errors
    /// Returns the errors of [`fit`](Self::fit), and [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn fit_with(
        train: &Interactions,
        valid: Option<&Interactions>,
        text: Option<&TextVectors>,
        config: &LinearConfig,
        seed: u64,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Self> {
        config.validate()?;
        if let Some(text) = text {
            text.check(train.n_items())?;
        }
        let (forms, left_out) = config.forms(train)?;
        if let Some(problem) = &left_out {
            tracing::info!("the dense form is not tried: {problem}");
        }
        let valid = valid.filter(|valid| !valid.is_empty());
        let near = text
            .map(|text| TextNeighbours::find_with(text, config.text_neighbours, progress))
            .transpose()?
            .map(Arc::new);
        let by_source = near.as_ref().map(|near| Arc::new(near.by_source(POWER)));

        let growing = valid.filter(|_| config.new_items > 0.0);
        let mut settings = valid.map_or(1, |_| forms.len() * most_settings(config, text.is_some()));
        settings += usize::from(growing.is_some());
        let mut reporter = Reporter::new(progress);
        reporter.columns.1 = (settings * train.n_items()) as u64;
        let LinearConfig { max_items, rows, text_neighbours, .. } = *config;
        let limits = Limits { max_items, rows, text_neighbours };
        let problem =
            |train: &Interactions| Problem::new(train, text.cloned(), near.clone(), limits);

        let middle = |list: &[f64]| list[list.len() / 2];
        let start = LinearReport {
            form: forms.first().copied().unwrap_or(Form::Dense),
            raised: 0,
            jacobi: false,
            left_out,
            l2: middle(&config.l2),
            text: if text.is_some() { middle(&config.text) } else { 0.0 },
            neighbours: 0.0,
            popularity: 0.0,
            new_items: config.new_items > 0.0,
            temperature: 1.0,
            validation: None,
            tried: Vec::new(),
        };
        let mut all = problem(train)?;
        let reporter = &mut reporter;
        let mut chooser = Chooser { problem: &mut all, text: by_source, config, reporter };
        let mut model = match (valid, growing) {
            (None, _) => chooser.solve(start)?,
            (Some(valid), None) => chooser.choose(&forms, &start, valid, seed)?,
            (Some(valid), Some(_)) => {
                let (known, new) = train.split_off_items(config.new_items, seed)?;
                let mut known = problem(&known)?;
                let text = chooser.text.clone();
                let reporter = &mut *chooser.reporter;
                let mut without = Chooser { problem: &mut known, text, config, reporter };
                let wanted = valid.union(&new)?;
                let chosen = without.choose(&forms, &start, &wanted, seed)?.report;
                let mut model = chooser.solve(chosen)?;
                let weights = (model.report.neighbours, model.report.popularity);
                let measured = Measured::new(train, valid, seed);
                let value = measured.ndcg(&model, &[weights], &mut |_, _| Ok(()))?;
                model.report.validation = value.first().copied();
                model
            }
        };
        model.report.temperature = temperature(&model, train, seed, reporter)?;
        Ok(model)
    }

    /// Fits a model with settings that were chosen earlier on similar data, for example on all
    /// interactions with settings that were chosen on a part of them. `config` contains the sizes
    /// that are not chosen. The report keeps the validation value of `chosen`.
    ///
    /// # Errors
    /// Returns the errors of [`fit`](Self::fit).
    pub fn refit(
        chosen: &LinearReport,
        train: &Interactions,
        text: Option<&TextVectors>,
        config: &LinearConfig,
        seed: u64,
    ) -> Result<Self> {
        Self::refit_with(chosen, train, text, config, seed, &mut Silent)
    }

    /// Fits a model like [`refit`](Self::refit) and reports progress.
    ///
    /// # Errors
    /// Returns the errors of [`fit_with`](Self::fit_with).
    pub fn refit_with(
        chosen: &LinearReport,
        train: &Interactions,
        text: Option<&TextVectors>,
        config: &LinearConfig,
        seed: u64,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Self> {
        config.validate()?;
        if let Some(text) = text {
            text.check(train.n_items())?;
        }
        let LinearConfig { max_items, rows, text_neighbours, .. } = *config;
        let near = text
            .map(|text| TextNeighbours::find_with(text, text_neighbours, progress))
            .transpose()?
            .map(Arc::new);
        let by_source = near.as_ref().map(|near| Arc::new(near.by_source(POWER)));
        let limits = Limits { max_items, rows, text_neighbours };
        let mut problem = Problem::new(train, text.cloned(), near, limits)?;
        let mut reporter = Reporter::new(progress);
        reporter.columns.1 = train.n_items() as u64;
        let ease = problem.ease(chosen.form, chosen.l2, chosen.text, &mut reporter)?;
        let report = LinearReport { temperature: 1.0, ..chosen.clone() };
        let mut model = Self::new(ease, by_source, train, report);
        model.report.temperature = temperature(&model, train, seed, &mut reporter)?;
        Ok(model)
    }
}
