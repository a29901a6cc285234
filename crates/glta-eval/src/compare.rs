//! One system against the others, paired over users and seeds.

use glta_metrics::Paired;
use serde::Serialize;

use crate::config::ProtocolConfig;
use crate::record::Record;
use crate::{Error, Result};

/// One system against another, paired over users and seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The system.
    pub system: String,
    /// The other one.
    pub against: String,
    /// The metric of every user.
    pub metric: String,
    /// Mean difference.
    pub difference: f64,
    /// Standard error of the mean difference.
    pub standard_error: f64,
    /// Of a two-sided paired t-test.
    pub p_value: f64,
    /// Number of users times seeds.
    pub pairs: usize,
}

impl Record {
    /// `system` against every other one, on the seeds that both have. Pairs are the users
    /// with test items.
    ///
    /// # Errors
    /// Users' results that cannot be read, or that are of other users.
    pub fn comparisons(&self, system: &str) -> Result<Vec<Comparison>> {
        let default = ProtocolConfig::default();
        let protocol = self.config.as_ref().map_or(&default, |config| &config.protocol);
        let mut found = Vec::new();
        for other in self.systems().into_iter().filter(|other| *other != system) {
            let mut pairs: Vec<Pairs> = protocol.compare.iter().map(|_| Pairs::default()).collect();
            for row in self.rows_of(system).filter(|row| self.row(other, row.seed).is_some()) {
                let own = self.users(system, row.seed)?;
                let theirs = self.users(other, row.seed)?;
                let users = own.iter().map(|u| &u.user);
                if !users.eq(theirs.iter().map(|u| &u.user)) {
                    let path = crate::users::path(&self.folder, other, row.seed);
                    let problem = format!("has other users than the file of {system}");
                    return Err(Error::file(&path, problem));
                }
                for (metric, pairs) in protocol.compare.iter().zip(&mut pairs) {
                    let name = metric.to_string();
                    for (own, theirs) in own.iter().zip(&theirs) {
                        if let Some((a, b)) = own.metrics.get(&name).zip(theirs.metrics.get(&name))
                        {
                            pairs.own.push(*a);
                            pairs.theirs.push(*b);
                        }
                    }
                }
            }
            for (metric, pairs) in protocol.compare.iter().zip(&pairs) {
                if pairs.own.len() < 2 {
                    continue;
                }
                let paired = Paired::from_values(&pairs.own, &pairs.theirs)?;
                found.push(Comparison {
                    system: system.to_owned(),
                    against: other.to_owned(),
                    metric: metric.to_string(),
                    difference: paired.mean(),
                    standard_error: paired.standard_error(),
                    p_value: paired.t_test().p_value,
                    pairs: pairs.own.len(),
                });
            }
        }
        Ok(found)
    }
}

/// A metric of two systems for the same users.
#[derive(Default)]
struct Pairs {
    own: Vec<f64>,
    theirs: Vec<f64>,
}
