//! Writes the paper's tables and figures from the rows of a record, as Markdown.

use std::collections::BTreeMap;
use std::path::Path;

use glta_align::Preset;
use glta_core::write_whole;
use glta_metrics::Buckets;
use serde::Serialize;

use crate::claims::{Claim, LEVEL, check};
use crate::compare::Comparison;
use crate::paper::Printed;
use crate::plot;
use crate::record::{Record, Value};
use crate::row::{Curve, Row, Settings};
use crate::systems::{ablated_name, main_name};
use crate::{Error, Result};

/// Rows of table 2 before the main row, in order.
const BASELINES: &[&str] = &[
    "Popularity",
    "EASE",
    "text-kNN",
    "EASE + text",
    "LightGCN",
    "HCCF",
    "LightGCN+",
    "HCCF+",
    "RLMRec-Con",
    "RLMRec-Gen",
    "AlphaRec",
];
const CONTROLS: &[&str] = &["Linear", "Linear random LLM", "GLTA no LLM", "GLTA random LLM"];

/// The content of `report.json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    rows: BTreeMap<&'a str, BTreeMap<&'a str, Value>>,
    comparisons: &'a [Comparison],
    claims: &'a [Claim],
    curves: Vec<Learned<'a>>,
}

/// The learning curve of one row.
#[derive(Debug, Serialize)]
struct Learned<'a> {
    system: &'a str,
    seed: u64,
    #[serde(flatten)]
    curve: &'a Curve,
}

impl Record {
    /// Writes `report.md`, `report.json` and the plots of the paper's result section to the folder
    /// of the experiment, and returns the Markdown. `printed` contains the figures of the paper.
    ///
    /// # Errors
    /// Returns an error if the users' results cannot be read, or if a file cannot be written.
    pub fn paper_report(&self, printed: &Printed) -> Result<String> {
        let preset = self.config.as_ref().map_or(Preset::Full, |config| config.preset);
        let (main, ablated) = (main_name(preset), ablated_name(preset));
        let comparisons = self.comparisons(main)?;
        let mut page = Page { record: self, printed, main, ablated, text: String::new() };
        page.head();
        page.table2()?;
        page.comparisons(&comparisons);
        page.controls()?;
        page.ablations()?;
        let claims = check(self, ablated, printed)?;
        page.claims(&claims);
        let curves: Vec<Learned<'_>> = self.rows.iter().filter_map(Learned::of).collect();
        page.curves(&curves);
        page.settings();
        let mut rows = BTreeMap::new();
        for row in &self.rows {
            let metrics =
                row.metrics.keys().filter_map(|m| Some((m.as_str(), self.value(&row.system, m)?)));
            rows.entry(row.system.as_str()).or_insert_with(|| metrics.collect());
        }
        let path = self.folder.join("report.json");
        let json = serde_json::to_vec_pretty(&Summary {
            rows,
            comparisons: &comparisons,
            claims: &claims,
            curves,
        })
        .map_err(|e| Error::file(&path, e))?;
        save(&path, &json)?;
        save(&self.folder.join("report.md"), page.text.as_bytes())?;
        Ok(page.text)
    }
}

impl<'a> Learned<'a> {
    fn of(row: &'a Row) -> Option<Self> {
        Some(Self { system: &row.system, seed: row.seed, curve: row.curve.as_ref()? })
    }
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes).map_err(|e| Error::io(path, e))
}

/// A builder of the report's Markdown.
struct Page<'a> {
    record: &'a Record,
    printed: &'a Printed,
    /// Name of the main row.
    main: &'static str,
    /// Name of the row that the ablations change.
    ablated: &'static str,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    fn row(&mut self, cells: &[String]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    fn table_head(&mut self, first: &str, columns: &[&str], last: &str) {
        self.line(&format!("| {first} | {} | {last} |", columns.join(" | ")));
        self.line(&format!("|---|{}---|", "---:|".repeat(columns.len())));
    }

    fn head(&mut self) {
        let (stats, protocol) = (&self.record.dataset, &self.record.protocol);
        let seeds: Vec<String> = self.record.seeds().iter().map(u64::to_string).collect();
        let llm = self.record.llm.as_ref().map_or(String::new(), |llm| {
            format!(" The language model is {}, with {} layers in prompts.", llm.name, llm.layers)
        });
        self.line(&format!("# {}\n", stats.name));
        self.line(&format!(
            "The split is {}: {:.0} % of the interactions are test data and {:.0} % of the rest are \
             validation data. All items are ranked, except training and validation items. The \
             seeds are {}. Validation N@10 selected all settings.{llm}\n",
            protocol.split,
            100.0 * protocol.test_ratio,
            100.0 * protocol.valid_ratio,
            seeds.join(", "),
        ));
        self.line(&format!("## Table 1: the data\n\n{stats}\n"));
    }

    fn table2(&mut self) -> Result<()> {
        const METRICS: [&str; 6] = ["P@5", "P@10", "N@5", "N@10", "R@20", "N@20"];
        self.line("## Table 2: all systems\n");
        self.line(&format!(
            "Values are means ± standard deviations over the seeds. The last column has the \
             paper's values for {} (P@5 P@10 N@5 N@10). The paper's split and filters are unknown, \
             so its values are a reference, not a target.\n",
            self.printed.name
        ));
        self.table_head("system", &METRICS, "paper");
        let mut bars = Vec::new();
        for system in BASELINES.iter().copied().chain([self.main]) {
            let Some(ndcg) = self.record.value(system, "N@10") else {
                continue;
            };
            bars.push((system.to_owned(), ndcg.mean, ndcg.deviation));
            let mut printed = self.printed.systems.iter();
            let printed_name = if system == self.main { "GLTA" } else { system };
            let printed = printed.find(|(name, _)| *name == printed_name);
            let printed = printed.map_or(String::new(), |(_, v)| v.map(number).join(" "));
            let mut cells = vec![system.to_owned()];
            cells.extend(METRICS.iter().map(|m| cell(self.record.value(system, m))));
            cells.push(printed);
            self.row(&cells);
        }
        self.line("\n![N@10 of all systems](table2.svg)\n");
        self.plot("table2", "N@10", &bars)?;
        self.line("### N@20 by the training degree of the items\n");
        self.by_bucket(|row| &row.by_item_degree);
        self.line("### N@20 by the number of the user's training items\n");
        self.by_bucket(|row| &row.by_user_activity);
        Ok(())
    }

    fn by_bucket(&mut self, values_of: impl Fn(&Row) -> &BTreeMap<String, f64>) {
        let labels = Buckets::default().labels();
        self.line(&format!("| system | {} |", labels.join(" | ")));
        self.line(&format!("|---|{}", "---:|".repeat(labels.len())));
        let systems = BASELINES.iter().copied().chain([self.main]).chain(CONTROLS.iter().copied());
        for system in systems {
            if self.record.rows_of(system).next().is_none() {
                continue;
            }
            let mut cells = vec![system.to_owned()];
            for label in &labels {
                let rows = self.record.rows_of(system);
                cells.push(cell(Value::of(rows.filter_map(|r| values_of(r).get(label).copied()))));
            }
            self.row(&cells);
        }
        self.line("");
    }

    fn comparisons(&mut self, comparisons: &[Comparison]) {
        self.line(&format!("### {} against each system, paired over users\n", self.main));
        self.line("| against | metric | difference | s.e. | p (paired t-test) | users |");
        self.line("|---|---|---:|---:|---:|---:|");
        for c in comparisons {
            self.row(&[
                c.against.clone(),
                c.metric.clone(),
                format!("{:+.4}", c.difference),
                format!("{:.4}", c.standard_error),
                format!("{:.1e}", c.p_value),
                c.pairs.to_string(),
            ]);
        }
        self.line("");
    }

    fn controls(&mut self) -> Result<()> {
        self.line("## Controls\n");
        self.line(
            "*Linear* is the linear model alone, without the prompt path. *No LLM* has neither \
             text vectors nor prompts. *Random LLM* computes text vectors and prompts with \
             random weights.\n",
        );
        let mut systems = vec![self.main];
        let others = CONTROLS.iter().filter(|system| **system != self.main);
        systems.extend(others.filter(|system| self.record.rows_of(system).next().is_some()));
        self.rows(&systems, &["P@10", "N@10", "N@20"], &|_| String::new());
        self.figure(&systems, "N@10", "controls")
    }

    fn ablations(&mut self) -> Result<()> {
        let (printed, whole) = (self.printed, self.ablated);
        self.line("## Ablations\n");
        let form = if whole == self.main {
            "."
        } else {
            ", the paper's complete form: item tokens, profile, prediction, and slots in parallel. \
             It has no linear model, because its parts would have no effect in addition to one."
        };
        self.line(&format!("The ablations change *{whole}*{form}\n"));
        self.line("### Figure 3: alignment (the column *paper* has P@10)\n");
        let systems = ["GLTA w/o IA", "GLTA w/o UA", whole];
        self.rows(&systems, &["P@10", "N@10"], &at(&systems, &printed.alignment.map(number)));
        self.figure(&systems, "P@10", "figure3")?;
        self.line("### Table 3: profile and prediction (the column *paper* has P@5 and N@5)\n");
        let systems = ["GLTA w/o both", "GLTA w/o PF", "GLTA w/o PD", whole];
        let values = printed.texts.map(|v| v.map(number).join(" "));
        self.rows(&systems, &["P@5", "N@5", "N@10"], &at(&systems, &values));
        self.line("### Figure 4: decoders (the column *paper* has N@10)\n");
        let systems = ["GLTA AR", "GLTA FL", whole, "GLTA MeanSlots"];
        self.rows(&systems, &["N@10", "N@20"], &at(&systems, &printed.decoders.map(number)));
        self.figure(&systems, "N@10", "figure4")
    }

    fn claims(&mut self, claims: &[Claim]) {
        self.line("## The paper's claims\n");
        self.line(&format!(
            "In this table *GLTA* is the row *{}*. A two-sided paired t-test compares the users' \
             means over the seeds. The answer is *yes* or *no* if p < {LEVEL}, otherwise \
             *undecided*. The p-values are not corrected for the number of claims.\n",
            self.ablated
        ));
        self.line("| claim | metric | paper | difference | s.e. | p | seeds | answer |");
        self.line("|---|---|---:|---:|---:|---:|---:|---|");
        for claim in claims {
            let mut cells =
                vec![claim.claim.clone(), claim.metric.to_owned(), format!("{:+.4}", claim.paper)];
            cells.extend(match &claim.found {
                None => ["-", "-", "-", "0"].map(str::to_owned),
                Some(found) => [
                    format!("{:+.4}", found.difference),
                    format!("{:.4}", found.standard_error),
                    format!("{:.1e}", found.p_value),
                    found.seeds.to_string(),
                ],
            });
            cells.push(claim.answer().word().to_owned());
            self.row(&cells);
        }
        self.line("");
    }

    fn curves(&mut self, curves: &[Learned<'_>]) {
        let evaluated: Vec<_> =
            curves.iter().filter(|learned| !learned.curve.validation.is_empty()).collect();
        if evaluated.is_empty() {
            return;
        }
        self.line("## Learning curves\n");
        self.line(
            "The table has the training loss of the first and the last epoch, and validation N@10 \
             at the first, the best and the last evaluation, with the epoch in brackets. \
             `report.json` has all values.\n",
        );
        self.line("| system | seed | first loss | last loss | first | best | last |");
        self.line("|---|---:|---:|---:|---:|---:|---:|");
        for Learned { system, seed, curve } in evaluated {
            let of = |value: Option<&f64>| value.map_or("-".into(), |v| format!("{v:.3}"));
            let at = |value: Option<&(usize, f64)>| {
                value.map_or("-".into(), |(epoch, v)| format!("{} ({epoch})", number(*v)))
            };
            let values = &curve.validation;
            // The first of equal values, because training keeps those weights.
            let best = values.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
            self.row(&[
                (*system).to_owned(),
                seed.to_string(),
                of(curve.losses.first()),
                of(curve.losses.last()),
                at(values.first()),
                at(best),
                at(values.last()),
            ]);
        }
        self.line("");
    }

    fn rows(&mut self, systems: &[&str], metrics: &[&str], paper: &dyn Fn(&str) -> String) {
        self.table_head("system", metrics, "paper");
        for system in systems {
            let mut cells = vec![(*system).to_owned()];
            cells.extend(metrics.iter().map(|m| cell(self.record.value(system, m))));
            cells.push(paper(system));
            self.row(&cells);
        }
        self.line("");
    }

    fn figure(&mut self, systems: &[&str], metric: &str, name: &str) -> Result<()> {
        let bars: Vec<plot::Bar> = systems
            .iter()
            .filter_map(|s| {
                let value = self.record.value(s, metric)?;
                Some(((*s).to_owned(), value.mean, value.deviation))
            })
            .collect();
        self.plot(name, metric, &bars)?;
        self.line(&format!("![{metric}]({name}.svg)\n"));
        Ok(())
    }

    fn plot(&self, name: &str, metric: &str, bars: &[plot::Bar]) -> Result<()> {
        let path = self.record.folder.join(format!("{name}.svg"));
        plot::bars(&path, &self.record.dataset.name, metric, bars)
    }

    fn settings(&mut self) {
        self.line("## Settings\n");
        self.line("The table has the settings that were chosen on validation data.\n");
        self.line("| system | seed | settings |");
        self.line("|---|---:|---|");
        for row in self.record.rows.iter().filter(|row| !row.settings.is_empty()) {
            self.row(&[row.system.clone(), row.seed.to_string(), in_words(&row.settings)]);
        }
    }
}

/// Returns a function from the name of a system to the paper's value.
fn at<'a>(systems: &'a [&str], values: &'a [String]) -> impl Fn(&str) -> String + 'a {
    move |system| {
        let at = systems.iter().position(|name| *name == system);
        at.and_then(|at| values.get(at).cloned()).unwrap_or_default()
    }
}

/// Formats settings as `name value`, and settings of a part as `part.name value`.
fn in_words(settings: &Settings) -> String {
    let mut words = Vec::new();
    for (name, value) in settings {
        match value {
            serde_json::Value::Object(fields) => {
                words.extend(fields.iter().map(|(field, value)| format!("{name}.{field} {value}")));
            }
            serde_json::Value::String(text) => words.push(format!("{name} {text}")),
            other => words.push(format!("{name} {other}")),
        }
    }
    words.join(", ")
}

fn cell(value: Option<Value>) -> String {
    match value {
        None => "-".into(),
        Some(Value { mean, seeds: 1, .. }) => number(mean),
        Some(Value { mean, deviation, .. }) => format!("{} ± {}", number(mean), number(deviation)),
    }
}

/// Formats a number without the leading zero, as in the paper.
fn number(value: f64) -> String {
    format!("{value:.4}").replacen("0.", ".", 1)
}
