//! The choice of the settings on validation data.

use std::sync::Arc;

use glta_core::{Progress, report, search};
use glta_data::Interactions;
use ndarray::{Array2, ArrayView2};

use crate::{
    Ease, EaseConfig, Error, LinearConfig, LinearModel, LinearReport, Result, SideInformation,
};

/// [`LinearModel::fit_with`] begins to fit the next setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearStep {
    /// Number of this setting, from 1.
    pub done: usize,
    /// Number of settings.
    pub total: usize,
}

/// Fits models with one set of text vectors and reports each.
pub(crate) struct Solver<'a> {
    pub(crate) vectors: Option<ArrayView2<'a, f32>>,
    /// The vectors' similarities, `(items, items)`.
    pub(crate) text: Option<Arc<Array2<f32>>>,
    pub(crate) config: &'a LinearConfig,
    pub(crate) progress: &'a mut dyn Progress<LinearStep>,
    pub(crate) done: usize,
    pub(crate) total: usize,
}

impl Solver<'_> {
    /// The model of these settings.
    pub(crate) fn solve(
        &mut self,
        train: &Interactions,
        settings: LinearReport,
    ) -> Result<LinearModel> {
        self.done += 1;
        report(self.progress, &LinearStep { done: self.done, total: self.total })?;
        let config = EaseConfig { l2: settings.l2, max_items: self.config.max_items };
        let weight = settings.text;
        let ease = match self.vectors {
            Some(vectors) if weight > 0.0 => {
                Ease::fit_collective(train, SideInformation { vectors, weight }, &config)?
            }
            _ => Ease::fit(train, &config)?,
        };
        Ok(LinearModel::new(ease, self.text.clone(), train, settings))
    }

    /// The model of the settings that are best on `valid`.
    pub(crate) fn choose(
        &mut self,
        train: &Interactions,
        valid: Option<&Interactions>,
    ) -> Result<LinearModel> {
        let (config, texts) = (self.config, self.vectors.is_some());
        let middle = |list: &[f64]| list[list.len() / 2];
        let start = LinearReport {
            l2: middle(&config.l2),
            text: if texts { middle(&config.text) } else { 0.0 },
            neighbours: 0.0,
            popularity: 0.0,
            new_items: config.new_items > 0.0,
            temperature: 1.0,
            validation: None,
        };
        let Some(valid) = valid.filter(|valid| !valid.is_empty()) else {
            return self.solve(train, start);
        };
        let settings: Vec<LinearReport> =
            config.l2.iter().map(|&l2| LinearReport { l2, ..start.clone() }).collect();
        let mut model = self.best(train, valid, &settings)?.ok_or_else(nothing_tried)?;
        let l2 = model.report.l2;
        let others: &[f64] = if texts { &config.text } else { &[] };
        let others = others.iter().filter(|&&text| text != start.text);
        let settings: Vec<LinearReport> =
            others.map(|&text| LinearReport { l2, text, ..start.clone() }).collect();
        if let Some(other) = self.best(train, valid, &settings)?
            && other.report.validation > model.report.validation
        {
            model = other;
        }
        let neighbours: &[f64] = if texts { &config.neighbours } else { &[] };
        for &weight in neighbours {
            let popularity = model.report.popularity;
            model.try_weights(train, valid, weight as f32, popularity)?;
        }
        for &weight in &config.popularity {
            let neighbours = model.report.neighbours;
            model.try_weights(train, valid, neighbours, weight as f32)?;
        }
        Ok(model)
    }

    /// The best model of `settings`; `None` if there are none.
    fn best(
        &mut self,
        train: &Interactions,
        valid: &Interactions,
        settings: &[LinearReport],
    ) -> Result<Option<LinearModel>> {
        let found = search(settings, |settings| -> Result<_> {
            let mut model = self.solve(train, settings.clone())?;
            model.report.validation = model.validation(train, valid)?;
            Ok((model.report.validation.unwrap_or(f64::NEG_INFINITY), model))
        })?;
        Ok(found.best.map(|(_, model)| model))
    }
}

impl LinearModel {
    /// Takes these weights if they are better on `valid`.
    fn try_weights(
        &mut self,
        train: &Interactions,
        valid: &Interactions,
        neighbours: f32,
        popularity: f32,
    ) -> Result<()> {
        let before = self.report.clone();
        self.report = LinearReport { neighbours, popularity, ..before.clone() };
        let validation = self.validation(train, valid)?;
        if validation > before.validation {
            self.report.validation = validation;
        } else {
            self.report = before;
        }
        Ok(())
    }
}

fn nothing_tried() -> Error {
    Error::Config {
        system: "linear model",
        field: "l2",
        problem: "at least one value is needed".into(),
    }
}
