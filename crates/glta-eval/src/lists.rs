//! Computes metrics of given lists of raw ids.

use std::collections::{BTreeMap, HashMap, HashSet};

use glta_data::Interactions;
use glta_metrics::evaluate_rankings;

use crate::record::Record;
use crate::users::UserResult;
use crate::{Error, MetricAt, Result};

/// Computes the means of metrics over the users with test items, from the fields `recommended` and
/// `test` of each result.
///
/// ```
/// use glta_eval::{UserResult, evaluate_lists};
///
/// let result = UserResult {
///     user: "ann".into(),
///     recommended: vec!["tea".into(), "milk".into()],
///     test: vec!["milk".into()],
///     metrics: Default::default(),
/// };
/// let means = evaluate_lists(&[result], &["P@2".parse()?, "MRR@2".parse()?])?;
/// assert_eq!((means["P@2"], means["MRR@2"]), (0.5, 0.5));
/// # Ok::<(), glta_eval::Error>(())
/// ```
///
/// # Errors
/// Returns an error if there is no metric, if a cut-off exceeds the longest list, if a user or an
/// item of a list is repeated, or if no user has test items.
pub fn evaluate_lists(
    results: &[UserResult],
    metrics: &[MetricAt],
) -> Result<BTreeMap<String, f64>> {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let mut users: HashSet<&str> = HashSet::new();
    let longest = results.iter().map(|result| result.recommended.len()).max().unwrap_or(0);
    if let Some(metric) = metrics.iter().find(|metric| metric.k > longest) {
        let problem = format!("{metric}: the longest list has only {longest} items");
        return Err(Error::Config { field: "metrics", problem });
    }
    let (mut pairs, mut lists) = (Vec::new(), Vec::new());
    for (user, result) in (0u32..).zip(results) {
        if !users.insert(&result.user) {
            let problem = format!("the user {} has two lists", result.user);
            return Err(Error::Config { field: "lists", problem });
        }
        let mut seen = HashSet::new();
        if let Some(twice) = result.recommended.iter().find(|raw| !seen.insert(*raw)) {
            let problem = format!("the list of {} has the item {twice} twice", result.user);
            return Err(Error::Config { field: "lists", problem });
        }
        let mut id = |raw| {
            let next = ids.len() as u32;
            *ids.entry(raw).or_insert(next)
        };
        pairs.extend(result.test.iter().map(|raw| (user, id(raw))));
        lists.push((user, result.recommended.iter().map(|raw| id(raw)).collect::<Vec<u32>>()));
    }
    let truth = Interactions::from_pairs(results.len(), ids.len(), pairs)?;
    let ks: Vec<usize> = metrics.iter().map(|m| m.k).collect();
    let report = evaluate_rankings(&lists, &truth, &ks)?;
    Ok(metrics.iter().filter_map(|m| Some((m.to_string(), m.of(&report)?))).collect())
}

impl Record {
    /// Returns a copy of the record whose rows contain the given metrics, computed from the users'
    /// lists.
    ///
    /// # Errors
    /// Returns an error if the users' results cannot be read, or if a cut-off exceeds the stored
    /// lists.
    pub fn with_metrics(&self, metrics: &[MetricAt]) -> Result<Self> {
        let mut record = self.clone();
        if let Some(config) = &mut record.config {
            let kept = config.protocol.ks().into_iter().max().unwrap_or(0);
            if let Some(metric) = metrics.iter().find(|m| m.k > kept) {
                let problem = format!("{metric}: the stored lists have only {kept} items");
                return Err(Error::Config { field: "metrics", problem });
            }
            config.protocol.metrics = metrics.to_vec();
        }
        for row in &mut record.rows {
            let results = self.users(&row.system, row.seed)?;
            let valid = row.metrics.remove_entry("valid_N@10");
            row.metrics = evaluate_lists(&results, metrics)?;
            row.metrics.extend(valid);
        }
        Ok(record)
    }
}
