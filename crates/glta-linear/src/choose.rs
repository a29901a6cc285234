//! Chooses the settings of a linear model on validation data.

use std::sync::Arc;

use glta_data::Interactions;

use crate::problem::Problem;
use crate::progress::Reporter;
use crate::solved::Solved;
use crate::sparse::SparseRows;
use crate::weigh::Measured;
use crate::{Form, LinearConfig, LinearModel, LinearReport, LinearStage, Result};

/// A search over settings, which fits models of one [`Problem`].
pub(crate) struct Chooser<'a, 'p> {
    pub(crate) problem: &'a mut Problem,
    /// Contributions of text neighbours, by source.
    pub(crate) text: Option<Arc<SparseRows>>,
    pub(crate) config: &'a LinearConfig,
    pub(crate) reporter: &'a mut Reporter<'p>,
}

/// Returns the maximum number of settings that are tried for a form.
pub(crate) fn most_settings(config: &LinearConfig, texts: bool) -> usize {
    if texts { 2 * config.l2.len() + config.text.len() - 2 } else { config.l2.len() }
}

impl Chooser<'_, '_> {
    /// Fits the model with given settings.
    pub(crate) fn solve(&mut self, settings: LinearReport) -> Result<LinearModel> {
        let LinearReport { form, l2, text, .. } = settings;
        let ease = self.problem.ease(form, l2, text, self.reporter)?;
        self.reporter.columns.0 += self.problem.train.n_items() as u64;
        let (form, Solved { raised, jacobi }) = (ease.form, ease.solved);
        let report = LinearReport { form, raised, jacobi, ..settings };
        Ok(LinearModel::new(ease, self.text.clone(), &self.problem.train, report))
    }

    /// Returns the model with the best settings on `valid` among all forms. For each form the
    /// method tries all λ with the middle α, then all α with the best λ, then all λ again if α has
    /// changed. A setting is judged by its N@10 with the best β and γ.
    pub(crate) fn choose(
        &mut self,
        forms: &[Form],
        start: &LinearReport,
        valid: &Interactions,
        seed: u64,
    ) -> Result<LinearModel> {
        let train = self.problem.train.clone();
        let measured = Measured::new(&train, valid, seed);
        let mut best: Option<LinearModel> = None;
        let mut tried = Vec::new();
        for &form in forms {
            let model = self.of_form(&LinearReport { form, ..start.clone() }, &measured)?;
            tried.push((model.report.form, model.report.validation.unwrap_or(f64::NEG_INFINITY)));
            if best.as_ref().is_none_or(|b| model.report.validation > b.report.validation) {
                best = Some(model);
            }
        }
        let mut model = match best {
            Some(model) => model,
            None => self.solve(start.clone())?,
        };
        model.report.tried = tried;
        Ok(model)
    }

    fn of_form(&mut self, start: &LinearReport, measured: &Measured<'_>) -> Result<LinearModel> {
        let config = self.config;
        let mut best = self.measure(start.clone(), measured)?;
        self.sweep(&mut best, &config.l2, |report| &mut report.l2, measured)?;
        if self.problem.text.is_some() {
            let before = best.report.text;
            self.sweep(&mut best, &config.text, |report| &mut report.text, measured)?;
            if best.report.text != before {
                self.sweep(&mut best, &config.l2, |report| &mut report.l2, measured)?;
            }
        }
        Ok(best)
    }

    /// Tries all values of one setting, except the current one.
    fn sweep(
        &mut self,
        best: &mut LinearModel,
        values: &[f64],
        field: impl Fn(&mut LinearReport) -> &mut f64,
        measured: &Measured<'_>,
    ) -> Result<()> {
        let start = best.report.clone();
        let known = *field(&mut start.clone());
        for &value in values.iter().filter(|&&value| value != known) {
            let mut settings = start.clone();
            *field(&mut settings) = value;
            let model = self.measure(settings, measured)?;
            if model.report.validation > best.report.validation {
                *best = model;
            }
        }
        Ok(())
    }

    /// Fits the model with given settings and chooses the best weights of neighbours and
    /// popularity.
    fn measure(&mut self, settings: LinearReport, measured: &Measured<'_>) -> Result<LinearModel> {
        let mut model = self.solve(settings)?;
        let others = |list: &[f64], on: bool| -> Vec<f32> {
            let list = list.iter().filter(|_| on).map(|&v| v as f32);
            std::iter::once(0.0).chain(list).collect()
        };
        let neighbours = others(&self.config.neighbours, self.text.is_some());
        let popularity = others(&self.config.popularity, true);
        let weights: Vec<(f32, f32)> =
            neighbours.iter().flat_map(|&b| popularity.iter().map(move |&c| (b, c))).collect();
        let reporter = &mut *self.reporter;
        let advance = &mut |done: usize, all: usize| {
            reporter.stage(LinearStage::Measure, done as u64, all as u64)
        };
        let values = measured.ndcg(&model, &weights, advance)?;
        let mut best = 0;
        for (at, value) in values.iter().enumerate() {
            if *value > values[best] {
                best = at;
            }
        }
        (model.report.neighbours, model.report.popularity) = weights[best];
        model.report.validation = Some(values[best]);
        Ok(model)
    }
}
