use crate::rank::{check_items, check_list, rank};
use crate::{Error, Ranked, Report, Result, Scorer};
use glta_data::Interactions;
use serde::{Deserialize, Serialize};

/// Settings of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Cut-offs, in any order; duplicates are ignored. Default 5, 10, 20.
    pub ks: Vec<usize>,
    /// Number of users that a thread scores at a time. Default 128.
    ///
    /// To bound memory, a scorer of item ranges computes half a million scores at a time, and a
    /// scorer of all items computes fewer users at a time if a block would exceed four million
    /// scores (16 MB). If `candidates` are set, the latter limit also applies to a scorer that
    /// computes its own lists.
    pub block_users: usize,
    /// The items to rank, as if the catalogue contained only these. Held-out items outside this set
    /// count as missed. Default all items.
    pub candidates: Option<Vec<u32>>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { ks: vec![5, 10, 20], block_users: DEFAULT_BLOCK_USERS, candidates: None }
    }
}

const DEFAULT_BLOCK_USERS: usize = 128;

impl EvaluationConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for no cut-off, a cut-off of 0, or empty blocks.
    pub fn validate(&self) -> Result<()> {
        check_ks(&self.ks)?;
        if self.block_users == 0 {
            return Err(Error::Config { field: "block_users", problem: "must be at least 1" });
        }
        Ok(())
    }
}

fn check_ks(ks: &[usize]) -> Result<()> {
    let problem = if ks.is_empty() {
        "needs at least one cut-off"
    } else if ks.contains(&0) {
        "a cut-off of 0 has no ranking"
    } else {
        return Ok(());
    };
    Err(Error::Config { field: "ks", problem })
}

fn ascending(ks: &[usize]) -> Vec<usize> {
    let mut ks = ks.to_vec();
    ks.sort_unstable();
    ks.dedup();
    ks
}

/// Ranks all items for every user with at least one item in `truth`, and measures the rankings.
///
/// A user's ranking contains neither the user's items of `masked` (the training part, and in a test
/// also the validation part) nor items with score −∞. Ties go to the lower item id. If the scorer
/// [computes its own lists](Scorer::lists_itself), these are used instead. The result does not
/// depend on the number of threads.
///
/// ```
/// use glta_data::Interactions;
/// use glta_metrics::{DotScorer, EvaluationConfig, Metric, evaluate};
/// use ndarray::array;
///
/// let (users, items) = (array![[1.0]], array![[0.9], [0.5], [0.7]]);
/// let scorer = DotScorer { users: users.view(), items: items.view() };
/// let train = Interactions::from_pairs(1, 3, [(0, 0)])?;
/// let test = Interactions::from_pairs(1, 3, [(0, 2)])?;
/// let config = EvaluationConfig { ks: vec![1], ..Default::default() };
/// let report = evaluate(&scorer, &test, &[&train], &config)?;
/// assert_eq!(report.get(Metric::Recall, 1), Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error for invalid settings, an unknown candidate, a matrix with a different number of
/// items than the scorer, a NaN score, a failing scorer, or a scorer's list with a repeated,
/// excluded or unknown item, and [`Error::NoUsers`].
pub fn evaluate(
    scorer: &dyn Scorer,
    truth: &Interactions,
    masked: &[&Interactions],
    config: &EvaluationConfig,
) -> Result<Report> {
    config.validate()?;
    check_items("items in the truth", scorer, truth)?;
    let users: Vec<u32> =
        (0..truth.n_users() as u32).filter(|&u| !truth.items(u).is_empty()).collect();
    if users.is_empty() {
        return Err(Error::NoUsers);
    }
    let ks = ascending(&config.ks);
    let rows = rank(
        scorer,
        &users,
        masked,
        config.candidates.as_deref(),
        ks[ks.len() - 1],
        config.block_users,
        |ranked, out: &mut Vec<u32>| out.extend(ranked.iter().map(|r| r.item)),
    )?;
    let mut ranked = Vec::new();
    let mut ends = Vec::with_capacity(users.len());
    for (items, lengths) in rows {
        for length in lengths {
            ends.push(ends.last().copied().unwrap_or(0) + length);
        }
        ranked.extend(items);
    }
    Ok(Report::measure(users, ranked, ends, truth, &ks))
}

/// Returns the best `k` items of each of `users`, best first, without the user's items in `masked`.
/// A list is shorter if fewer items are left.
///
/// ```
/// use glta_metrics::{DotScorer, top_k};
/// use ndarray::array;
///
/// let (users, items) = (array![[1.0]], array![[0.9], [0.5], [0.7]]);
/// let scorer = DotScorer { users: users.view(), items: items.view() };
/// let lists = top_k(&scorer, &[0], &[], 2)?;
/// assert_eq!(lists[0].iter().map(|ranked| ranked.item).collect::<Vec<_>>(), [0, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns the errors of [`evaluate`].
pub fn top_k(
    scorer: &dyn Scorer,
    users: &[u32],
    masked: &[&Interactions],
    k: usize,
) -> Result<Vec<Vec<Ranked>>> {
    let blocks = rank(
        scorer,
        users,
        masked,
        None,
        k,
        DEFAULT_BLOCK_USERS,
        |ranked, out: &mut Vec<Vec<Ranked>>| out.push(ranked.to_vec()),
    )?;
    Ok(blocks.into_iter().flat_map(|(rows, _)| rows).collect())
}

/// Measures given rankings: `(user, items best first)`.
///
/// The means are over the given users with at least one item in `truth`. Rankings are cut at the
/// largest cut-off.
///
/// ```
/// use glta_data::Interactions;
/// use glta_metrics::{Metric, evaluate_rankings};
///
/// let test = Interactions::from_pairs(2, 4, [(0, 1), (1, 3)])?;
/// let report = evaluate_rankings(&[(0, vec![1, 2]), (1, vec![0, 3])], &test, &[1, 2])?;
/// assert_eq!(report.get(Metric::HitRate, 1), Some(0.5));
/// assert_eq!(report.get(Metric::Mrr, 2), Some(0.75));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error for a user given twice, a ranking with a repeated item or an item beyond the
/// items of `truth`, or invalid cut-offs, and [`Error::NoUsers`].
pub fn evaluate_rankings(
    rankings: &[(u32, Vec<u32>)],
    truth: &Interactions,
    ks: &[usize],
) -> Result<Report> {
    check_ks(ks)?;
    let ks = ascending(ks);
    let k = ks[ks.len() - 1];
    let mut rows: Vec<&(u32, Vec<u32>)> =
        rankings.iter().filter(|(u, _)| !truth.items(*u).is_empty()).collect();
    rows.sort_by_key(|(u, _)| *u);
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::Ranking { user: pair[0].0, problem: "is given twice".into() });
    }
    if rows.is_empty() {
        return Err(Error::NoUsers);
    }
    let (mut users, mut ranked, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = Vec::new();
    for (user, items) in rows {
        check_list(*user, items.iter().copied(), truth.n_items(), &mut seen)?;
        users.push(*user);
        ranked.extend_from_slice(&items[..items.len().min(k)]);
        ends.push(ranked.len());
    }
    Ok(Report::measure(users, ranked, ends, truth, &ks))
}
