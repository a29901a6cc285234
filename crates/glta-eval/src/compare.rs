//! Comparison of one system with the others, paired over users.

use std::collections::BTreeMap;

use glta_metrics::Paired;
use serde::Serialize;

use crate::config::ProtocolConfig;
use crate::record::Record;
use crate::{Error, Result};

/// The comparison of two systems, paired over users.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The system.
    pub system: String,
    /// The system to compare with.
    pub against: String,
    /// The metric of each user.
    pub metric: String,
    /// Mean difference.
    pub difference: f64,
    /// Standard error of the mean difference.
    pub standard_error: f64,
    /// P-value of a two-sided paired t-test.
    pub p_value: f64,
    /// Number of users.
    pub pairs: usize,
    /// Number of seeds over which a user's difference is averaged.
    pub seeds: usize,
}

impl Record {
    /// Compares `system` with every other one. The pairs are the users with test items. A user's
    /// difference is the mean over the seeds of both systems, because the same user with another
    /// seed is not a new observation.
    ///
    /// # Errors
    /// Users' results that cannot be read, or that belong to other users.
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

    /// Compares two systems by metrics of the users' results; nothing if they have no common seed.
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

    /// Adds the users of one seed.
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

/// The values of a metric for two systems, for each user and seed.
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
