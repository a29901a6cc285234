use glta_data::Interactions;
use serde::{Deserialize, Serialize};

use crate::{Error, Report, Result};

/// Ranges of the number of training interactions of an item or a user.
///
/// ```
/// use glta_metrics::Buckets;
///
/// assert_eq!(Buckets::default().labels(), ["0", "1-4", "5-19", "20+"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Buckets {
    /// Lowest number of interactions of each bucket, ascending from 0. Default 0, 1, 5, 20.
    pub lower_bounds: Vec<u32>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { lower_bounds: vec![0, 1, 5, 20] }
    }
}

impl Buckets {
    /// Checks the bounds.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the bounds do not increase strictly from 0.
    pub fn validate(&self) -> Result<()> {
        if self.lower_bounds.first() == Some(&0)
            && self.lower_bounds.windows(2).all(|w| w[0] < w[1])
        {
            return Ok(());
        }
        Err(Error::Config { field: "lower_bounds", problem: "must rise strictly from 0" })
    }

    /// Returns the names of the buckets, such as `5-19`.
    pub fn labels(&self) -> Vec<String> {
        let uppers = self.lower_bounds.iter().skip(1).map(|&next| next - 1);
        let mut labels: Vec<String> = self
            .lower_bounds
            .iter()
            .zip(uppers)
            .map(|(&low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") })
            .collect();
        labels.extend(self.lower_bounds.last().map(|last| format!("{last}+")));
        labels
    }

    /// Returns the bucket of a count.
    fn of(&self, count: u32) -> usize {
        self.lower_bounds.partition_point(|&low| low <= count) - 1
    }
}

/// The metrics of one bucket.
///
/// A bucket serialises as the means of the report with `label` and `users`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Bucket {
    /// The range of numbers of interactions, such as `5-19`.
    pub label: String,
    /// Number of users over whom the means are taken; without users, there are no means.
    pub users: usize,
    /// The metrics of the users in the bucket.
    #[serde(flatten)]
    pub report: Report,
}

impl Report {
    /// Returns the metrics by popularity of the held-out items. For each bucket, the same rankings
    /// over all items are measured against the items of `truth` whose training degree is in the
    /// bucket. Users without such an item are left out of that bucket.
    ///
    /// `degrees` is `(items,)`, as returned by [`Interactions::item_degrees`].
    ///
    /// # Errors
    /// Returns an error for invalid bounds, or if `truth` or `degrees` has a different number of
    /// items than the report.
    pub fn by_item_degree(
        &self,
        truth: &Interactions,
        degrees: &[u32],
        buckets: &Buckets,
    ) -> Result<Vec<Bucket>> {
        buckets.validate()?;
        if degrees.len() != self.n_items() {
            return Err(Error::Shape {
                what: "item degrees",
                expected: self.n_items(),
                got: degrees.len(),
            });
        }
        let labels = buckets.labels().into_iter().enumerate();
        labels
            .map(|(n, label)| {
                let part = truth.filter(|_, item| {
                    degrees.get(item as usize).is_some_and(|&d| buckets.of(d) == n)
                });
                Ok(Bucket::new(label, self.with_truth(&part)?))
            })
            .collect()
    }

    /// Returns the metrics by the number of the user's items in `train`.
    ///
    /// # Errors
    /// Returns an error for invalid bounds.
    pub fn by_user_activity(&self, train: &Interactions, buckets: &Buckets) -> Result<Vec<Bucket>> {
        buckets.validate()?;
        let labels = buckets.labels().into_iter().enumerate();
        Ok(labels
            .map(|(n, label)| {
                let part =
                    self.filter_users(|user| buckets.of(train.items(user).len() as u32) == n);
                Bucket::new(label, part)
            })
            .collect())
    }
}

impl Bucket {
    fn new(label: String, report: Report) -> Self {
        Self { label, users: report.users().len(), report }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metric, evaluate_rankings};

    /// Returns a report of two users and four items with training degrees 2, 1, 0, 7.
    fn setup() -> (Report, Interactions, Interactions, Vec<u32>) {
        let truth = Interactions::from_pairs(2, 4, [(0, 0), (0, 2), (1, 3)]).unwrap();
        let train = Interactions::from_pairs(2, 4, [(0, 1), (1, 0), (1, 1)]).unwrap();
        let rankings = [(0, vec![2, 3, 0]), (1, vec![0, 3])];
        let report = evaluate_rankings(&rankings, &truth, &[1, 3]).unwrap();
        (report, truth, train, vec![2, 1, 0, 7])
    }

    #[test]
    fn by_item_degree_restricts_the_truth_only() {
        let (report, truth, _, degrees) = setup();
        let parts = report.by_item_degree(&truth, &degrees, &Buckets::default()).unwrap();
        let users: Vec<usize> = parts.iter().map(|b| b.users).collect();
        assert_eq!(users, [1, 1, 1, 0]);
        let recall = |n: usize, k| parts[n].report.get(Metric::Recall, k);
        assert_eq!(recall(0, 1), Some(1.0));
        // Item 0 is at rank 3: items outside the bucket keep their ranks.
        assert_eq!(recall(1, 1), Some(0.0));
        assert_eq!(parts[1].report.get(Metric::Mrr, 3), Some(1.0 / 3.0));
        assert_eq!(parts[2].report.get(Metric::Mrr, 3), Some(0.5));
        assert_eq!(recall(3, 1), None);
        let json = serde_json::to_value(&parts[1]).unwrap();
        assert_eq!(json["label"], "1-4");
        assert_eq!(json["R@3"], 1.0);
        assert!(report.by_item_degree(&truth, &[1], &Buckets::default()).is_err());
    }

    #[test]
    fn by_user_activity_picks_users() {
        let (report, _, train, _) = setup();
        let buckets = Buckets { lower_bounds: vec![0, 2] };
        let parts = report.by_user_activity(&train, &buckets).unwrap();
        assert_eq!(parts[0].label, "0-1");
        assert_eq!(parts[0].report.users(), [0]);
        assert_eq!(parts[1].report.users(), [1]);
        assert_eq!(parts[1].report.ranking(0), [0, 3]);
        assert_eq!(parts[1].report.per_user(Metric::Mrr, 3), Some(&[0.5][..]));
    }

    #[test]
    fn bounds_must_rise_from_zero() {
        for bad in [vec![], vec![1], vec![0, 5, 5]] {
            assert!(Buckets { lower_bounds: bad }.validate().is_err());
        }
    }
}
