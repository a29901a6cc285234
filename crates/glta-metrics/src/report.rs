use glta_data::Interactions;
use rayon::prelude::*;
use serde::{Serialize, Serializer};

use crate::metric::{Discounts, measure};
use crate::{Error, Metric, Result};

/// Result of an evaluation: the users' rankings and every metric of each user.
///
/// A report serialises as a map from short names to means over users, `{"P@5": 0.41, …}`, which is
/// a row of `metrics.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    n_items: usize,
    ks: Vec<usize>,
    users: Vec<u32>,
    /// Concatenated rankings: the ranking of `users[r]` is `ranked[ends[r - 1]..ends[r]]`.
    ranked: Vec<u32>,
    ends: Vec<usize>,
    /// Values of metric `m` at `ks[c]` in `values[m * ks.len() + c]`, one per user.
    values: Vec<Vec<f64>>,
}

impl Report {
    /// Measures rankings. Row `r` belongs to `users[r]`, and every user must have held-out items.
    pub(crate) fn measure(
        users: Vec<u32>,
        ranked: Vec<u32>,
        ends: Vec<usize>,
        truth: &Interactions,
        ks: &[usize],
    ) -> Self {
        let ks = ks.to_vec();
        let columns = Metric::ALL.len() * ks.len();
        // No list is longer than the catalogue, even for a large cut-off.
        let longest = ks.last().map_or(0, |&k| k.min(truth.n_items()));
        let discounts = Discounts::new(longest);
        let mut rows = vec![0.0; users.len() * columns];
        if columns > 0 {
            rows.par_chunks_mut(columns).with_min_len(256).enumerate().for_each(|(r, row)| {
                let start = if r == 0 { 0 } else { ends[r - 1] };
                let ranking = &ranked[start..ends[r]];
                measure(ranking, truth.items(users[r]), &ks, &discounts, row);
            });
        }
        let values =
            (0..columns).map(|c| rows.iter().skip(c).step_by(columns).copied().collect()).collect();
        Self { n_items: truth.n_items(), ks, users, ranked, ends, values }
    }

    /// Returns the cut-offs in ascending order.
    pub fn ks(&self) -> &[usize] {
        &self.ks
    }

    /// Returns the evaluated users, in the order of the per-user values.
    pub fn users(&self) -> &[u32] {
        &self.users
    }

    /// Returns the number of items in the catalogue.
    pub fn n_items(&self) -> usize {
        self.n_items
    }

    /// Returns the ranking of the user at index `row` of [`users`](Self::users), best first, up to
    /// the largest cut-off. The ranking is empty for an index beyond the last user.
    pub fn ranking(&self, row: usize) -> &[u32] {
        let Some(&end) = self.ends.get(row) else {
            return &[];
        };
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.ranked[start..end]
    }

    /// Returns the metric of every user at `k`, in the order of [`users`](Self::users); `None` if
    /// `k` is not a cut-off.
    pub fn per_user(&self, metric: Metric, k: usize) -> Option<&[f64]> {
        let c = self.ks.iter().position(|&other| other == k)?;
        self.values.get(metric.index() * self.ks.len() + c).map(Vec::as_slice)
    }

    /// Returns the mean of a metric at `k` over users; `None` if `k` is not a cut-off or there are
    /// no users.
    pub fn get(&self, metric: Metric, k: usize) -> Option<f64> {
        let values = self.per_user(metric, k)?;
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Iterates over all means with their short names, `("P@5", …)`, metric by metric.
    pub fn iter(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        Metric::ALL.into_iter().flat_map(move |metric| {
            self.ks.iter().filter_map(move |&k| {
                Some((format!("{}@{k}", metric.short_name()), self.get(metric, k)?))
            })
        })
    }

    /// Returns a report of only the users for which `keep` returns true.
    pub fn filter_users(&self, keep: impl Fn(u32) -> bool) -> Self {
        let rows: Vec<usize> = (0..self.users.len()).filter(|&r| keep(self.users[r])).collect();
        let (mut ranked, mut ends) = (Vec::new(), Vec::with_capacity(rows.len()));
        for &r in &rows {
            ranked.extend_from_slice(self.ranking(r));
            ends.push(ranked.len());
        }
        Self {
            n_items: self.n_items,
            ks: self.ks.clone(),
            users: rows.iter().map(|&r| self.users[r]).collect(),
            ranked,
            ends,
            values: self
                .values
                .iter()
                .map(|column| rows.iter().map(|&r| column[r]).collect())
                .collect(),
        }
    }

    /// Measures the same rankings against different held-out items, for example only the rare ones.
    /// Users without an item in `truth` are left out.
    ///
    /// # Errors
    /// Returns an error if `truth` has a different number of items than the report.
    pub fn with_truth(&self, truth: &Interactions) -> Result<Self> {
        if truth.n_items() != self.n_items {
            return Err(Error::Shape {
                what: "items in the truth",
                expected: self.n_items,
                got: truth.n_items(),
            });
        }
        let kept = self.filter_users(|u| !truth.items(u).is_empty());
        Ok(Self::measure(kept.users, kept.ranked, kept.ends, truth, &self.ks))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
