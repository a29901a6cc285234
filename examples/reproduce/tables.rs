//! The paper's tables and figures out of the rows of a run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use glta::metrics::Buckets;
use serde::Serialize;

use super::paper::Printed;
use crate::common::Result;
use crate::common::compare;
use crate::common::pipeline::variants::COMPLETE;
use crate::common::plot;
use crate::common::report::{Record, Row, Value, save};

/// Rows of table 2, in its order, and what stands beside them here.
const SYSTEMS: &[&str] = &[
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
    "GLTA",
];
const CONTROLS: &[&str] = &["GLTA", "Linear", "GLTA no LLM", "GLTA random LLM"];

/// `report.json`.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    rows: BTreeMap<&'a str, BTreeMap<&'a str, Value>>,
    comparisons: Vec<compare::Comparison>,
}

/// Writes `report.md`, `report.json` and the plots into `out`; returns the
/// Markdown.
pub(crate) fn report(record: &Record, printed: &Printed, out: &Path) -> Result<String> {
    let comparisons = compare::comparisons(record, out)?;
    let mut text = String::new();
    let stats = &record.dataset;
    let seeds: Vec<String> = record.protocol.seeds.iter().map(u64::to_string).collect();
    writeln!(text, "# {}\n", stats.name)?;
    writeln!(
        text,
        "Split at random per user, {:.0} % test and {:.0} % of the rest validation; training and \
         validation items left out of the lists; all items ranked. Seeds {}. Every choice was made \
         on validation N@10. {}\n",
        100.0 * record.protocol.test_ratio,
        100.0 * record.protocol.valid_ratio,
        seeds.join(", "),
        record.llm.as_ref().map_or(String::new(), |llm| format!(
            "Language model: {}, {} layers in prompts.",
            llm.name, llm.layers
        )),
    )?;
    writeln!(text, "## Table 1: the data\n\n{stats}\n")?;
    table2(&mut text, record, printed, out)?;
    compared(&mut text, &comparisons)?;
    controls(&mut text, record, out)?;
    ablations(&mut text, record, printed, out)?;
    writeln!(text, "## Settings\n")?;
    for row in record.rows.iter().filter(|row| !row.settings.is_empty()) {
        writeln!(text, "- {}, seed {}: {}", row.system, row.seed, row.settings)?;
    }
    let mut rows = BTreeMap::new();
    for row in &record.rows {
        let metrics =
            row.metrics.keys().filter_map(|m| Some((m.as_str(), record.value(&row.system, m)?)));
        rows.entry(row.system.as_str()).or_insert_with(|| metrics.collect());
    }
    let summary = Summary { rows, comparisons };
    save(&out.join("report.json"), &serde_json::to_vec_pretty(&summary)?)?;
    save(&out.join("report.md"), text.as_bytes())?;
    Ok(text)
}

fn rows_of<'a>(record: &'a Record, system: &str) -> impl Iterator<Item = &'a Row> {
    record.rows.iter().filter(move |row| row.system == system)
}

fn cell(value: Option<Value>) -> String {
    match value {
        None => "-".into(),
        Some(Value { mean, seeds: 1, .. }) => number(mean),
        Some(Value { mean, deviation, .. }) => format!("{} ± {}", number(mean), number(deviation)),
    }
}

/// Without the leading zero, as the paper prints it.
fn number(value: f64) -> String {
    format!("{value:.4}").replacen("0.", ".", 1)
}

fn table2(text: &mut String, record: &Record, printed: &Printed, out: &Path) -> Result<()> {
    let metrics = ["P@5", "P@10", "N@5", "N@10", "R@20", "N@20"];
    writeln!(text, "## Table 2: all systems\n")?;
    writeln!(
        text,
        "Mean ± standard deviation over the seeds. The last column is what the paper prints for {} \
         (P@5 P@10 N@5 N@10), whose split and filters are not known: a reference, not a target.\n",
        printed.name
    )?;
    writeln!(text, "| system | {} | paper |", metrics.join(" | "))?;
    writeln!(text, "|---|{}---|", "---:|".repeat(metrics.len()))?;
    let mut bars = Vec::new();
    for system in SYSTEMS {
        let Some(ndcg) = record.value(system, "N@10") else {
            continue;
        };
        bars.push((system.to_string(), ndcg.mean, ndcg.deviation));
        let cells: Vec<String> = metrics.iter().map(|m| cell(record.value(system, m))).collect();
        let paper = printed.systems.iter().find(|(name, _)| name == system);
        let paper = paper.map_or(String::new(), |(_, v)| v.map(number).join(" "));
        writeln!(text, "| {system} | {} | {paper} |", cells.join(" | "))?;
    }
    writeln!(text, "\n![N@10 of all systems](table2.svg)\n")?;
    let title = format!("{}: N@10", record.dataset.name);
    plot::bars(&out.join("table2.svg"), &title, "N@10", &bars)?;
    writeln!(text, "### N@20 by the training degree of the items to be found\n")?;
    by_bucket(text, record, |row| &row.by_item_degree)?;
    writeln!(text, "### N@20 by the number of the user's training items\n")?;
    by_bucket(text, record, |row| &row.by_user_activity)
}

fn by_bucket(
    text: &mut String,
    record: &Record,
    of: impl Fn(&Row) -> &BTreeMap<String, f64>,
) -> Result<()> {
    let labels = Buckets::default().labels();
    writeln!(text, "| system | {} |\n|---|{}", labels.join(" | "), "---:|".repeat(labels.len()))?;
    for system in SYSTEMS.iter().chain(&CONTROLS[1..]) {
        if rows_of(record, system).next().is_none() {
            continue;
        }
        let cells: Vec<String> = labels
            .iter()
            .map(|label| {
                cell(Value::of(
                    rows_of(record, system).filter_map(|row| of(row).get(label).copied()),
                ))
            })
            .collect();
        writeln!(text, "| {system} | {} |", cells.join(" | "))?;
    }
    writeln!(text)?;
    Ok(())
}

fn compared(text: &mut String, comparisons: &[compare::Comparison]) -> Result<()> {
    writeln!(text, "### GLTA against each, paired over users and seeds\n")?;
    writeln!(text, "| against | metric | difference | s.e. | p (paired t-test) | pairs |")?;
    writeln!(text, "|---|---|---:|---:|---:|---:|")?;
    for c in comparisons {
        writeln!(
            text,
            "| {} | {} | {:+.4} | {:.4} | {:.1e} | {} |",
            c.against, c.metric, c.difference, c.standard_error, c.p_value, c.pairs
        )?;
    }
    writeln!(text)?;
    Ok(())
}

fn controls(text: &mut String, record: &Record, out: &Path) -> Result<()> {
    writeln!(text, "## Controls\n")?;
    writeln!(
        text,
        "*Linear* is the linear item model alone, without the prompt's path. *No LLM* has \
         neither text vectors nor prompts. *Random LLM* reads texts and prompts with random \
         weights.\n"
    )?;
    rows(text, record, CONTROLS, &["P@10", "N@10", "N@20"], &|_| String::new())?;
    figure(text, record, CONTROLS, "N@10", "controls", out)
}

fn ablations(text: &mut String, record: &Record, printed: &Printed, out: &Path) -> Result<()> {
    writeln!(
        text,
        "## Ablations\n\n*{COMPLETE}* is the paper's complete form (item tokens, profile, \
         prediction, slots in parallel) without the linear model, beside which its parts would not \
         show.\n"
    )?;
    let of = |names: &'static [&'static str], values: Vec<String>| {
        move |system: &str| {
            let at = names.iter().position(|name| *name == system);
            at.and_then(|at| values.get(at).cloned()).unwrap_or_default()
        }
    };
    writeln!(text, "### Figure 3: alignment (the paper's column: P@10)\n")?;
    const ALIGNMENT: &[&str] = &["GLTA w/o IA", "GLTA w/o UA", COMPLETE];
    let paper = of(ALIGNMENT, printed.alignment.map(number).to_vec());
    rows(text, record, ALIGNMENT, &["P@10", "N@10"], &paper)?;
    figure(text, record, ALIGNMENT, "P@10", "figure3", out)?;
    writeln!(text, "### Table 3: profile and prediction (the paper's column: P@5, N@5)\n")?;
    const TEXTS: &[&str] = &["GLTA w/o both", "GLTA w/o PF", "GLTA w/o PD", COMPLETE];
    let paper = of(TEXTS, printed.texts.map(|v| v.map(number).join(" ")).to_vec());
    rows(text, record, TEXTS, &["P@5", "N@5", "N@10"], &paper)?;
    writeln!(text, "### Figure 4: decoders (the paper's column: N@10)\n")?;
    const DECODERS: &[&str] = &["GLTA AR", "GLTA FL", COMPLETE, "GLTA MeanSlots"];
    let paper = of(DECODERS, printed.decoders.map(number).to_vec());
    rows(text, record, DECODERS, &["N@10", "N@20"], &paper)?;
    figure(text, record, DECODERS, "N@10", "figure4", out)
}

fn rows(
    text: &mut String,
    record: &Record,
    systems: &[&str],
    metrics: &[&str],
    paper: &dyn Fn(&str) -> String,
) -> Result<()> {
    writeln!(text, "| system | {} | paper |", metrics.join(" | "))?;
    writeln!(text, "|---|{}---|", "---:|".repeat(metrics.len()))?;
    for system in systems {
        let cells: Vec<String> = metrics.iter().map(|m| cell(record.value(system, m))).collect();
        writeln!(text, "| {system} | {} | {} |", cells.join(" | "), paper(system))?;
    }
    writeln!(text)?;
    Ok(())
}

fn figure(
    text: &mut String,
    record: &Record,
    systems: &[&str],
    metric: &'static str,
    name: &str,
    out: &Path,
) -> Result<()> {
    let bars: Vec<plot::Bar> = systems
        .iter()
        .filter_map(|s| record.value(s, metric).map(|v| (s.to_string(), v.mean, v.deviation)))
        .collect();
    let title = format!("{}: {metric}", record.dataset.name);
    plot::bars(&out.join(format!("{name}.svg")), &title, metric, &bars)?;
    writeln!(text, "![{metric}]({name}.svg)\n")?;
    Ok(())
}
