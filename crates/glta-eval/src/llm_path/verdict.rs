//! The verdict on `run.llm_path`: whether the language model improves the linear model.

use glta_core::write_whole;
use serde::Serialize;

use super::names::{FORMS, LINEAR};
use crate::compare::Comparison;
use crate::record::Record;
use crate::{Error, Result};

const METRIC: &str = "N@10";

/// Comparisons and conclusion for the rows of `run.llm_path`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LlmPathVerdict {
    /// Comparisons in test N@10 of each row that adds a score of the language model: with the
    /// linear model, and with its controls.
    pub comparisons: Vec<Comparison>,
    /// Names of the rows that gain more than `llm_path.min_gain` over the linear model and every
    /// control.
    pub gains: Vec<String>,
    /// The comparisons and the conclusion as Markdown.
    #[serde(skip)]
    pub report: String,
}

impl Record {
    /// Compares each row of `run.llm_path` that adds a score of the language model with the linear
    /// model and with its controls by N@10, and writes `llm-path.md` and `llm-path.json` to the
    /// folder of the experiment.
    ///
    /// # Errors
    /// Returns an error if the users' results cannot be read, or if a file cannot be written.
    pub fn llm_path_verdict(&self) -> Result<LlmPathVerdict> {
        let min_gain = self.config.as_ref().map_or(0.0, |config| config.llm_path.min_gain);
        let (mut comparisons, mut gains) = (Vec::new(), Vec::new());
        for (form, controls) in FORMS {
            let mut found = Vec::new();
            for other in [LINEAR].iter().chain(controls) {
                found.extend(self.compare(form, other, &[METRIC.to_owned()])?);
            }
            if !found.is_empty() && found.iter().all(|c| c.difference > min_gain) {
                gains.push(form.to_owned());
            }
            comparisons.extend(found);
        }
        let mut verdict = LlmPathVerdict { comparisons, gains, report: String::new() };
        verdict.report = self.page(&verdict, min_gain);
        let save = |name: &str, bytes: &[u8]| {
            let path = self.folder.join(name);
            write_whole(&path, bytes).map_err(|e| Error::io(&path, e))
        };
        save("llm-path.md", verdict.report.as_bytes())?;
        let json = serde_json::to_vec_pretty(&verdict)
            .map_err(|e| Error::file(&self.folder.join("llm-path.json"), e))?;
        save("llm-path.json", &json)?;
        Ok(verdict)
    }

    fn page(&self, verdict: &LlmPathVerdict, min_gain: f64) -> String {
        let mut lines = vec![format!(
            "# The language model on top of the linear model: {}\n",
            self.dataset.name
        )];
        if let Some(llm) = &self.llm {
            lines
                .push(format!("The language model is {}, with {} layers.\n", llm.name, llm.layers));
        }
        lines.push("| system | seeds | N@10 | N@20 | validation N@10 |".into());
        lines.push("|---|---:|---:|---:|---:|".into());
        for system in self.systems() {
            let cell = |metric: &str| match self.value(system, metric) {
                None => "-".to_owned(),
                Some(v) if v.seeds == 1 => format!("{:.4}", v.mean),
                Some(v) => format!("{:.4} ± {:.4}", v.mean, v.deviation),
            };
            let seeds = self.rows_of(system).count();
            let (test, twenty, valid) = (cell(METRIC), cell("N@20"), cell("valid_N@10"));
            lines.push(format!("| {system} | {seeds} | {test} | {twenty} | {valid} |"));
        }
        lines.push("\nThe differences are in test N@10, paired over users:\n".into());
        lines.push("| form | against | difference | s.e. | p | users | seeds |".into());
        lines.push("|---|---|---:|---:|---:|---:|---:|".into());
        for c in &verdict.comparisons {
            lines.push(format!(
                "| {} | {} | {:+.4} | {:.4} | {:.1e} | {} | {} |",
                c.system, c.against, c.difference, c.standard_error, c.p_value, c.pairs, c.seeds
            ));
        }
        lines.push(match &verdict.gains[..] {
            [] => format!(
                "\nNo form gains more than {min_gain} over the linear model and every control. The \
                 language model does not improve the linear model on these data."
            ),
            gains => format!(
                "\nThese forms gain more than {min_gain} over the linear model and every control: {}.",
                gains.join(", ")
            ),
        });
        lines.join("\n") + "\n"
    }
}
