//! Measures properties of the lists other than accuracy.

use crate::{Error, Report, Result};

impl Report {
    /// Returns the number of users whose top `k` contains each item, `(items,)`; `None` if `k`
    /// exceeds the largest cut-off.
    pub fn item_counts(&self, k: usize) -> Option<Vec<u32>> {
        if k > *self.ks().last()? {
            return None;
        }
        let mut counts = vec![0; self.n_items()];
        for row in 0..self.users().len() {
            for &item in self.ranking(row).iter().take(k) {
                counts[item as usize] += 1;
            }
        }
        Some(counts)
    }

    /// Returns the fraction of all items that are in some user's top `k`; `None` if `k` exceeds the
    /// largest cut-off.
    pub fn coverage(&self, k: usize) -> Option<f64> {
        let counts = self.item_counts(k)?;
        let shown = counts.iter().filter(|&&n| n > 0).count();
        (!counts.is_empty()).then(|| shown as f64 / counts.len() as f64)
    }

    /// Returns the Gini index of the items' counts in the top `k`: 0 if all items are equally
    /// frequent, near 1 if few items fill all lists. Items that are in no list count too. Returns
    /// `None` if `k` exceeds the largest cut-off.
    pub fn gini(&self, k: usize) -> Option<f64> {
        let mut counts = self.item_counts(k)?;
        counts.sort_unstable();
        let n = counts.len() as f64;
        let total: f64 = counts.iter().map(|&c| f64::from(c)).sum();
        let weighted: f64 = (1..)
            .zip(&counts)
            .map(|(rank, &c)| (2.0 * f64::from(rank) - n - 1.0) * f64::from(c))
            .sum();
        (total > 0.0).then(|| weighted / (n * total))
    }

    /// Returns the mean training degree of the items in the top `k`, averaged over a user's list,
    /// then over users; `None` if `k` exceeds the largest cut-off. `degrees` is `(items,)`.
    ///
    /// # Errors
    /// Returns an error if the number of degrees differs from the number of items.
    pub fn average_popularity(&self, k: usize, degrees: &[u32]) -> Result<Option<f64>> {
        if degrees.len() != self.n_items() {
            return Err(Error::Shape {
                what: "item degrees",
                expected: self.n_items(),
                got: degrees.len(),
            });
        }
        if self.ks().last().is_none_or(|&largest| k > largest) {
            return Ok(None);
        }
        let means: Vec<f64> = (0..self.users().len())
            .map(|row| self.ranking(row))
            .map(|ranking| &ranking[..k.min(ranking.len())])
            .filter(|shown| !shown.is_empty())
            .map(|shown| {
                let sum: f64 = shown.iter().map(|&i| f64::from(degrees[i as usize])).sum();
                sum / shown.len() as f64
            })
            .collect();
        Ok((!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64))
    }
}

#[cfg(test)]
mod tests {
    use glta_data::Interactions;

    use crate::evaluate_rankings;

    #[test]
    fn worked_by_hand() {
        let truth = Interactions::from_pairs(2, 4, [(0, 0), (1, 0)]).unwrap();
        let rankings = [(0, vec![0, 1]), (1, vec![0])];
        let report = evaluate_rankings(&rankings, &truth, &[1, 2]).unwrap();
        assert_eq!(report.item_counts(2).unwrap(), [2, 1, 0, 0]);
        assert_eq!(report.coverage(1), Some(0.25));
        assert_eq!(report.coverage(2), Some(0.5));
        assert_eq!(report.coverage(3), None);
        // The counts are 0 0 1 2: (1·1 + 3·2) / (4·3).
        assert_eq!(report.gini(2), Some(7.0 / 12.0));
        let popularity = report.average_popularity(2, &[10, 4, 0, 0]).unwrap();
        assert_eq!(popularity, Some((7.0 + 10.0) / 2.0));
        assert!(report.average_popularity(2, &[1]).is_err());
    }
}
