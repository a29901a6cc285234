//! Stores the results of every user by raw ids, in one file per row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use glta_core::write_whole;
use glta_data::{Dataset, Split};
use glta_metrics::Report;
use serde::{Deserialize, Serialize};

use crate::{Error, MetricAt, Result};

/// The result of one user, a line of `seed-N/users/SYSTEM.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserResult {
    /// Raw user id.
    pub user: String,
    /// Raw ids of the recommended items, best first.
    pub recommended: Vec<String>,
    /// Raw ids of the test items.
    pub test: Vec<String>,
    /// Test metrics by name, such as `N@10`.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}

/// Returns the results of all users with test items.
pub(crate) fn results(
    dataset: &Dataset,
    split: &Split,
    test: &Report,
    metrics: &[MetricAt],
) -> Vec<UserResult> {
    let raw = |items: &[u32]| {
        items.iter().map(|&item| dataset.items()[item as usize].raw_id.clone()).collect()
    };
    let columns: Vec<(String, &[f64])> = metrics
        .iter()
        .filter_map(|m| Some((m.to_string(), test.per_user(m.metric, m.k)?)))
        .collect();
    let result = |(row, &user): (usize, &u32)| UserResult {
        user: dataset.users()[user as usize].clone(),
        recommended: raw(test.ranking(row)),
        test: raw(split.test.items(user)),
        metrics: columns.iter().map(|(name, values)| (name.clone(), values[row])).collect(),
    };
    test.users().iter().enumerate().map(result).collect()
}

/// Returns the path of the file of a row.
pub(crate) fn path(folder: &Path, system: &str, seed: u64) -> PathBuf {
    folder.join(format!("seed-{seed}")).join("users").join(file_name(system))
}

/// Returns the file name of a system.
pub(crate) fn file_name(system: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '+' { c } else { '-' };
    let name: String = system.to_lowercase().chars().map(plain).collect();
    format!("{name}.jsonl")
}

pub(crate) fn save(path: &Path, results: &[UserResult]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut text = Vec::new();
    for result in results {
        serde_json::to_writer(&mut text, result).map_err(|e| Error::file(path, e))?;
        text.push(b'\n');
    }
    write_whole(path, &text).map_err(|e| Error::io(path, e))
}

/// Reads the users' results of a row.
pub(crate) fn load(path: &Path) -> Result<Vec<UserResult>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(n, line)| {
        serde_json::from_str(line).map_err(|e| Error::file(path, format!("line {}: {e}", n + 1)))
    };
    lines.map(parse).collect()
}
