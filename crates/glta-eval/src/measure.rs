//! Measures a fitted system and creates its row.

use glta_data::{Interactions, Split};
use glta_metrics::{EvaluationConfig, Report, Scorer, evaluate, evaluate_rankings};

use crate::row::{Row, peak_rss_mb};
use crate::seed::{Seed, validation};
use crate::system::Fitted;
use crate::users::{UserResult, results};
use crate::{Error, Result};

/// Measures a system on the test part. `seconds` is the duration of its fit.
pub(crate) fn measure(
    seed: &Seed<'_>,
    system: &str,
    fitted: &Fitted,
    seconds: f64,
) -> Result<(Row, Vec<UserResult>)> {
    let (split, protocol) = (seed.split, &seed.config.protocol);
    let scorer = &*fitted.scorer;
    let test = ranked(seed, scorer, &split.test, None, &protocol.ks())?;
    let mut row = Row::measured(system, seed.number, &test, split, protocol)?;
    let valid = match fitted.validation {
        None if !split.valid.is_empty() => Some(validation(scorer, split)?),
        known => known,
    };
    row.metrics.extend(valid.map(|v| ("valid_N@10".to_owned(), v)));
    if !split.cold_items.is_empty() {
        let truth = cold_test(split);
        let among = ranked(seed, scorer, &truth, Some(split.cold_items.clone()), &[20])?;
        row.add_cold(split, &test, &among)?;
    }
    row.settings.clone_from(&fitted.settings);
    row.train_seconds = fitted.seconds.unwrap_or(seconds);
    row.epochs = fitted.epochs;
    row.curve.clone_from(&fitted.curve);
    if fitted.epochs > 0 {
        row.seconds_per_epoch = row.train_seconds / fitted.epochs as f64;
    }
    row.peak_rss_mb = peak_rss_mb();
    Ok((row, results(seed.dataset, split, &test, &protocol.kept())))
}

/// Returns the test interactions of cold items.
fn cold_test(split: &Split) -> Interactions {
    split.test.filter(|_, item| split.cold_items.binary_search(&item).is_ok())
}

/// Computes the metrics of lists for all users with items in `truth`. If lists are expensive, the
/// ranks divide the users among them.
fn ranked(
    seed: &Seed<'_>,
    scorer: &dyn Scorer,
    truth: &Interactions,
    candidates: Option<Vec<u32>>,
    ks: &[usize],
) -> Result<Report> {
    let masked = [&seed.split.train, &seed.split.valid];
    let config = EvaluationConfig { ks: ks.to_vec(), candidates, ..EvaluationConfig::default() };
    if seed.comm.size() == 1 || !scorer.lists_itself() {
        return Ok(evaluate(scorer, truth, &masked, &config)?);
    }
    let users: Vec<u32> =
        (0..truth.n_users() as u32).filter(|&user| !truth.items(user).is_empty()).collect();
    let own = &users[seed.comm.share(users.len())];
    let mut lists: Vec<(u32, Vec<u32>)> = Vec::new();
    if !own.is_empty() {
        let part = truth.filter(|user, _| own.binary_search(&user).is_ok());
        let report = evaluate(scorer, &part, &masked, &config)?;
        let users = report.users().iter().enumerate();
        lists.extend(users.map(|(row, &user)| (user, report.ranking(row).to_vec())));
    }
    let bytes = serde_json::to_vec(&lists).map_err(|e| Error::file(&seed.folder, e))?;
    let mut all = Vec::new();
    for part in seed.comm.all_gather(&bytes)? {
        let part: Vec<(u32, Vec<u32>)> =
            serde_json::from_slice(&part).map_err(|e| Error::file(&seed.folder, e))?;
        all.extend(part);
    }
    Ok(evaluate_rankings(&all, truth, ks)?)
}
