//! Compares one system with the other systems, paired over users.

use std::collections::BTreeMap;

use glta_metrics::Paired;
use serde::Serialize;

use crate::config::ProtocolConfig;
use crate::record::Record;
use crate::{Error, Result};

/// The difference between two systems in one metric, paired over users.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// Name of the first system.
    pub system: String,
    /// Name of the second system.
    pub against: String,
    /// Name of the compared metric, such as `N@10`.
    pub metric: String,
    /// Mean of `system` minus `against` over the users.
    pub difference: f64,
    /// Standard error of the mean difference.
    pub standard_error: f64,
    /// P-value of a two-sided paired t-test.
    pub p_value: f64,
    /// Number of users that were paired.
    pub pairs: usize,
    /// Number of seeds over which the difference of each user is averaged.
    pub seeds: usize,
}

impl Record {
    /// Compares `system` with every other system by the metrics in `protocol.compare`.
    ///
    /// The pairs are the users with test items. The difference of a user is the mean over the seeds
    /// of both systems, because the same user with a different seed is not an independent
    /// observation.
    ///
    /// # Errors
    /// Returns an error if the users' results cannot be read, or if two files have different users.
    pub fn comparisons(&self, system: &str) -> Result<Vec<Comparison>> {
        let default = ProtocolConfig::default();
        let protocol = self.config.as_ref().map_or(&default, |config| &config.protocol);
        let names: Vec<String> = protocol.compare.iter().map(ToString::to_string).collect();
        let mut found = Vec::new();
        for other in self.systems().into_iter().filter(|other| *other != system) {
            found.extend(self.compare(system, other, &names)?);
        }
        Ok(found)
    }

    /// Compares two systems by the given metrics of the users' results. Returns an empty list if
    /// the systems have no seed in common.
    pub(crate) fn compare(
        &self,
        system: &str,
        other: &str,
        metrics: &[String],
    ) -> Result<Vec<Comparison>> {
        let (mut pairs, mut seeds) = (vec![Pairs::new(); metrics.len()], 0);
        for row in self.rows_of(system).filter(|row| self.row(other, row.seed).is_some()) {
            self.add_pairs(system, other, row.seed, metrics, &mut pairs)?;
            seeds += 1;
        }
        let mut found = Vec::new();
        for (metric, pairs) in metrics.iter().zip(&pairs) {
            found.extend(comparison(system, other, metric, pairs, seeds)?);
        }
        Ok(found)
    }

    /// Adds the values of the users of one seed to `pairs`, one map per metric.
    fn add_pairs(
        &self,
        system: &str,
        other: &str,
        seed: u64,
        names: &[String],
        pairs: &mut [Pairs],
    ) -> Result<()> {
        let (own, theirs) = (self.users(system, seed)?, self.users(other, seed)?);
        if !own.iter().map(|u| &u.user).eq(theirs.iter().map(|u| &u.user)) {
            let path = crate::users::path(&self.folder, other, seed);
            return Err(Error::file(&path, format!("has other users than the file of {system}")));
        }
        for (name, pairs) in names.iter().zip(pairs) {
            for (own, theirs) in own.iter().zip(&theirs) {
                if let Some((a, b)) = own.metrics.get(name).zip(theirs.metrics.get(name)) {
                    pairs.entry(own.user.clone()).or_default().push((*a, *b));
                }
            }
        }
        Ok(())
    }
}

/// Values of one metric by user: for each seed, the value of both systems.
type Pairs = BTreeMap<String, Vec<(f64, f64)>>;

fn comparison(
    system: &str,
    other: &str,
    metric: &str,
    pairs: &Pairs,
    seeds: usize,
) -> Result<Option<Comparison>> {
    if pairs.len() < 2 {
        return Ok(None);
    }
    let mean = |of: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let users = pairs.values();
        users.map(|seeds| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64).collect()
    };
    let paired = Paired::from_values(&mean(|pair| pair.0), &mean(|pair| pair.1))?;
    Ok(Some(Comparison {
        system: system.to_owned(),
        against: other.to_owned(),
        metric: metric.to_owned(),
        difference: paired.mean(),
        standard_error: paired.standard_error(),
        p_value: paired.t_test().p_value,
        pairs: pairs.len(),
        seeds,
    }))
}
