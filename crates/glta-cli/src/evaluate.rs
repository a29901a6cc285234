//! `glta evaluate`: prints the tables of a run, or the metrics of ranked lists.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use glta_data::readers::{PairsConfig, PairsLayout, Table, TableConfig, pairs};
use glta_eval::{MetricAt, Record, UserResult, evaluate_lists};
use serde::Deserialize;

use crate::output::outln;
use crate::{Result, exit, experiment};

/// Print the tables of a run, or measure ranked lists on test pairs.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Folder of a run (with metrics.json).
    #[arg(value_name = "RUN", required_unless_present = "lists", conflicts_with = "lists")]
    run: Option<PathBuf>,
    /// File of ranked lists: JSON lines {"user": ..., "recommended": [...]}, such as
    /// seed-N/users/*.jsonl of a run, or text lines `user item item ...`, best first.
    #[arg(long, value_name = "FILE")]
    lists: Option<PathBuf>,
    /// File of test pairs, one `user item` per line; not needed if the JSON lines of --lists
    /// contain the test items as "test": [...].
    #[arg(long, value_name = "FILE", requires = "lists")]
    test: Option<PathBuf>,
    /// Metrics to print, such as P@5,N@10,R@20,H@10,MRR@10,MAP@10.
    #[arg(long, value_name = "NAME@K", value_delimiter = ',')]
    metrics: Vec<String>,
}

/// Runs `glta evaluate`.
pub fn run(args: &EvaluateArgs) -> ExitCode {
    exit(|| print(args))
}

fn print(args: &EvaluateArgs) -> Result<()> {
    let metrics = args.metrics.iter().map(|m| m.parse());
    let metrics = metrics.collect::<std::result::Result<Vec<MetricAt>, _>>()?;
    match (&args.run, &args.lists) {
        (_, Some(lists)) => lists_table(lists, args.test.as_deref(), metrics),
        (Some(folder), None) => {
            let record = Record::load(folder)?.ok_or_else(|| {
                format!("{}: there is no metrics.json with rows", folder.display())
            })?;
            outln!("{}", record.dataset);
            if metrics.is_empty() {
                experiment::print(&record)
            } else {
                experiment::print(&record.with_metrics(&metrics)?)
            }
        }
        (None, None) => Err("give the folder of a run, or --lists FILE".into()),
    }
}

fn lists_table(lists: &Path, test: Option<&Path>, mut metrics: Vec<MetricAt>) -> Result<()> {
    if metrics.is_empty() {
        metrics = glta_eval::ProtocolConfig::default().metrics;
    }
    let mut results = read_lists(lists)?;
    if let Some(test) = test {
        let mut held = read_test(test)?;
        let lists = results.len();
        results.retain_mut(|result| match held.remove(&result.user) {
            Some(items) => {
                result.test = items;
                true
            }
            None => false,
        });
        outln!(
            "{} users with test items, {} of them without a list (counted as empty); {} lists of \
             users without test items are left out",
            results.len() + held.len(),
            held.len(),
            lists - results.len(),
        );
        results.extend(held.into_iter().map(|(user, test)| UserResult {
            user,
            recommended: Vec::new(),
            test,
            metrics: BTreeMap::new(),
        }));
        results.sort_by(|a, b| a.user.cmp(&b.user));
    } else {
        let without = results.iter().filter(|result| result.test.is_empty()).count();
        if without == results.len() {
            return Err(format!("{}: no list has `test`; give --test FILE", lists.display()).into());
        }
        outln!("{} users, {without} of them without test items", results.len());
    }
    let means = evaluate_lists(&results, &metrics)?;
    for metric in &metrics {
        let name = metric.to_string();
        let value = means.get(&name).copied().unwrap_or(f64::NAN);
        outln!("{name:<10}{value:>8.4}");
    }
    Ok(())
}

#[derive(Deserialize)]
struct ListLine {
    user: Id,
    recommended: Vec<Id>,
    #[serde(default)]
    test: Vec<Id>,
}

/// A raw id, which JSON may contain as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(serde_json::Number),
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        match id {
            Id::Text(text) => text,
            Id::Number(number) => number.to_string(),
        }
    }
}

fn read_lists(path: &Path) -> Result<Vec<UserResult>> {
    let result =
        |user, recommended, test| UserResult { user, recommended, test, metrics: BTreeMap::new() };
    let config = TableConfig { header: Some(false), ..TableConfig::default() };
    let mut table = Table::open(path, &config)?;
    let mut results = Vec::new();
    if !table.has_objects() {
        table.allow_ragged();
        while let Some(row) = table.next_row()? {
            let mut fields = Vec::new();
            for n in 0..row.len() {
                fields.push(row.text(n)?.to_owned());
            }
            // No item follows a separator at the end of a line.
            while fields.last().is_some_and(String::is_empty) {
                fields.pop();
            }
            if fields.iter().any(String::is_empty) {
                return Err(row.error("an id is empty").into());
            }
            let mut fields = fields.into_iter();
            results.extend(fields.next().map(|user| result(user, fields.collect(), Vec::new())));
        }
        return Ok(results);
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: ListLine = serde_json::from_str(line)
            .map_err(|e| format!("{}, line {}: {e}", path.display(), n + 1))?;
        let raw = |ids: Vec<Id>| ids.into_iter().map(String::from).collect();
        results.push(result(line.user.into(), raw(line.recommended), raw(line.test)));
    }
    Ok(results)
}

/// Reads the test items of each user.
fn read_test(path: &Path) -> Result<HashMap<String, Vec<String>>> {
    let config = PairsConfig::of(PairsLayout::Pairs);
    let data = pairs(path, &config)?;
    let items = |user: u32| {
        let items = data.interactions().items(user).iter();
        items.map(|&item| data.items()[item as usize].raw_id.clone()).collect()
    };
    Ok((0u32..).zip(data.users()).map(|(user, raw)| (raw.clone(), items(user))).collect())
}
