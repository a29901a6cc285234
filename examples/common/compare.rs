//! GLTA against the other systems, paired over users and seeds.

use std::path::Path;

use glta::metrics::Paired;
use serde::Serialize;

use super::Result;
use super::report::{Record, UserMetrics};

/// GLTA against another system, paired over users and seeds.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub system: String,
    pub against: String,
    pub metric: &'static str,
    pub difference: f64,
    pub standard_error: f64,
    /// Of a two-sided paired t-test.
    pub p_value: f64,
    pub pairs: usize,
}

/// GLTA against every other system, on the seeds that both have.
pub fn comparisons(record: &Record, out: &Path) -> Result<Vec<Comparison>> {
    const SYSTEM: &str = "GLTA";
    let mut others: Vec<&str> = Vec::new();
    for row in &record.rows {
        if row.system != SYSTEM && !others.contains(&row.system.as_str()) {
            others.push(&row.system);
        }
    }
    let mut found = Vec::new();
    for other in others {
        let (mut own, mut theirs) = (UserMetrics::default(), UserMetrics::default());
        for row in record.rows.iter().filter(|row| row.system == SYSTEM) {
            if record.row(other, row.seed).is_some() {
                own.append(UserMetrics::load(out, SYSTEM, row.seed)?);
                theirs.append(UserMetrics::load(out, other, row.seed)?);
            }
        }
        for (metric, a, b) in
            [("N@10", &own.ndcg_10, &theirs.ndcg_10), ("N@20", &own.ndcg_20, &theirs.ndcg_20)]
        {
            if a.len() < 2 {
                continue;
            }
            let paired = Paired::from_values(a, b)?;
            found.push(Comparison {
                system: SYSTEM.into(),
                against: other.into(),
                metric,
                difference: paired.mean(),
                standard_error: paired.standard_error(),
                p_value: paired.t_test().p_value,
                pairs: a.len(),
            });
        }
    }
    Ok(found)
}

/// One line a system.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut out = format!(
        "{:<22}{:>7}{:>13}{:>9}{:>10}{:>9}",
        "GLTA against", "metric", "difference", "s.e.", "p", "pairs"
    );
    for c in comparisons {
        out += &format!(
            "\n{:<22}{:>7}{:>+13.4}{:>9.4}{:>10.1e}{:>9}",
            c.against, c.metric, c.difference, c.standard_error, c.p_value, c.pairs
        );
    }
    out
}
