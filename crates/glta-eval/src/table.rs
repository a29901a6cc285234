//! Formats a record as text tables, at most 80 columns wide with the default metrics.

use std::collections::BTreeMap;

use glta_metrics::Buckets;

use crate::compare::Comparison;
use crate::record::{Record, Value};
use crate::row::Row;

impl Record {
    /// Returns a table with the means of the metrics over the seeds, one line per system. `*` marks
    /// the best value of a column.
    pub fn table(&self) -> String {
        let mut columns: Vec<String> = match &self.config {
            Some(config) => config.protocol.metrics.iter().map(ToString::to_string).collect(),
            None => self.rows.iter().flat_map(|row| row.metrics.keys().cloned()).collect(),
        };
        columns.retain(|c| c != VALID);
        let mut seen = std::collections::BTreeSet::new();
        columns.retain(|c| seen.insert(c.clone()));
        columns.push(VALID.to_owned());
        let table = self.means("system", &columns, |row| &row.metrics);
        let all = self.seeds().len();
        let fewer = self.systems().into_iter().filter_map(|system| {
            let seeds = self.rows_of(system).count();
            (seeds < all).then(|| format!("{system} {seeds}"))
        });
        let fewer: Vec<String> = fewer.collect();
        if fewer.is_empty() {
            return table;
        }
        format!("{table}\n(means over {all} seeds; fewer seeds: {})", fewer.join(", "))
    }

    /// Returns a table of N@20 by bucket of the items' training degree.
    pub fn by_degree(&self) -> String {
        self.means("N@20 by degree", &Buckets::default().labels(), |row| &row.by_item_degree)
    }

    /// Returns a table of N@20 by bucket of the users' number of training items.
    pub fn by_activity(&self) -> String {
        self.means("N@20 by activity", &Buckets::default().labels(), |row| &row.by_user_activity)
    }

    /// Returns a table of the metrics of cold and warm items at cut-off 20.
    pub fn cold(&self) -> String {
        const COLUMNS: [&str; 7] =
            ["cold N", "cold R", "cold/all N", "cold/all R", "warm/all N", "warm/all R", SHARE];
        let head = format!(
            "{:<WIDE$}{:^18}{:^18}{:^12}\n{:<WIDE$}{}{:>8}",
            "cold items, at 20",
            "among cold",
            "cold in all",
            "warm in all",
            "",
            format!("{:>8} {:>8} ", "N", "R").repeat(3),
            "share"
        );
        let table = self.lines(&head, &COLUMNS.map(String::from), |row| &row.cold);
        table
            + "\n(Systems that give all cold items the same score, such as Popularity and EASE,\n \
               list them by id: these values measure the order of the raw files.)"
    }

    fn means(
        &self,
        title: &str,
        columns: &[String],
        values_of: impl Fn(&Row) -> &BTreeMap<String, f64>,
    ) -> String {
        let mut head = format!("{title:<WIDE$}");
        for column in columns {
            head += &format!("{:>8} ", column.replace("valid_", "v"));
        }
        self.lines(head.trim_end(), columns, values_of)
    }

    fn lines(
        &self,
        head: &str,
        columns: &[String],
        values_of: impl Fn(&Row) -> &BTreeMap<String, f64>,
    ) -> String {
        let mut out = head.to_owned();
        let cell = |system: &str, column: &String| {
            Value::of(self.rows_of(system).filter_map(|row| values_of(row).get(column).copied()))
                .map(|value| value.mean)
        };
        let systems = self.systems();
        let best: Vec<Option<f64>> = columns
            .iter()
            .map(|c| systems.iter().filter_map(|s| cell(s, c)).max_by(f64::total_cmp))
            .collect();
        for system in &systems {
            let mut line = format!("{system:<WIDE$}");
            for (column, best) in columns.iter().zip(&best) {
                line += &match cell(system, column) {
                    None => format!("{:>8} ", "-"),
                    Some(value) => {
                        let is_best = Some(value) == *best && value > 0.0 && column != SHARE;
                        let mark = if is_best { '*' } else { ' ' };
                        format!("{value:>8.4}{mark}")
                    }
                };
            }
            out += "\n";
            out += line.trim_end();
        }
        out
    }
}

/// Width of the column of names, in characters.
const WIDE: usize = 17;
const VALID: &str = "valid_N@10";
/// Name of the column without a best value, because higher values are not better.
const SHARE: &str = "cold share";

/// Returns a table of comparisons, one per line.
pub fn comparison_table(comparisons: &[Comparison]) -> String {
    let system = comparisons.first().map_or("", |c| c.system.as_str());
    let mut out = format!(
        "{:<22}{:>7}{:>13}{:>9}{:>10}{:>9}",
        format!("{system} against"),
        "metric",
        "difference",
        "s.e.",
        "p",
        "users"
    );
    for c in comparisons {
        out += &format!(
            "\n{:<22}{:>7}{:>+13.4}{:>9.4}{:>10.1e}{:>9}",
            c.against, c.metric, c.difference, c.standard_error, c.p_value, c.pairs
        );
    }
    out
}
