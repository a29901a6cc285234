use serde::{Deserialize, Serialize};

/// A metric of one user's ranking, cut off at `k`.
///
/// `T` is the set of the user's held-out items, `rel(r)` is 1 if the item at rank `r` (from 1) is
/// in `T` and 0 otherwise, and `hits(r)` is the sum of `rel` up to rank `r`. A ranking shorter than
/// `k` counts as if the missing ranks had no hit, so precision always divides by `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// Precision, `hits(k) / k`.
    Precision,
    /// Recall, `hits(k) / |T|`.
    Recall,
    /// Normalised discounted cumulative gain with binary relevance: `Σ rel(r) / log₂(r+1)`, divided
    /// by the largest possible value, that of `min(|T|, k)` hits at the top.
    Ndcg,
    /// Hit rate: 1 if there is a hit, otherwise 0.
    HitRate,
    /// Reciprocal rank of the first hit; 0 without a hit.
    Mrr,
    /// Average precision as in RecBole, `Σ rel(r) · hits(r)/r`, divided by `min(|T|, k)`.
    Map,
    /// Average precision as `map_cut` of trec_eval, divided by `|T|`.
    MapCut,
}

impl Metric {
    /// All metrics, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Precision,
        Self::Recall,
        Self::Ndcg,
        Self::HitRate,
        Self::Mrr,
        Self::Map,
        Self::MapCut,
    ];

    /// Returns the short name in tables and in `metrics.json`, such as the `N` of `N@10`.
    ///
    /// ```
    /// use glta_metrics::Metric;
    ///
    /// assert_eq!(Metric::Ndcg.short_name(), "N");
    /// ```
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Precision => "P",
            Self::Recall => "R",
            Self::Ndcg => "N",
            Self::HitRate => "H",
            Self::Mrr => "MRR",
            Self::Map => "MAP",
            Self::MapCut => "MAPcut",
        }
    }

    /// Returns the position in [`ALL`](Self::ALL).
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// The discounts `1 / log₂(r + 1)` for the ranks `r = 1..=k`, and their running sums. `k` must be
/// at least the length of each list and the largest possible number of hits.
pub(crate) struct Discounts {
    gain: Vec<f64>,
    /// Gain of `n` hits at the top, in `ideal[n]`.
    ideal: Vec<f64>,
}

impl Discounts {
    pub(crate) fn new(k: usize) -> Self {
        let gain: Vec<f64> = (1..=k).map(|r| 1.0 / ((r + 1) as f64).log2()).collect();
        let mut ideal = vec![0.0];
        for g in &gain {
            ideal.push(ideal[ideal.len() - 1] + g);
        }
        Self { gain, ideal }
    }
}

/// Computes all metrics of one user at every `k` of the ascending `ks`.
///
/// `ranking` must be best first without repeats, `truth` ascending and not empty. Metric
/// `Metric::ALL[m]` at `ks[c]` is written to `out[m * ks.len() + c]`.
pub(crate) fn measure(
    ranking: &[u32],
    truth: &[u32],
    ks: &[usize],
    discounts: &Discounts,
    out: &mut [f64],
) {
    let relevant = truth.len() as f64;
    let (mut hits, mut gain, mut precision_sum, mut first) = (0usize, 0.0, 0.0, 0usize);
    let mut rank = 0;
    for (c, &k) in ks.iter().enumerate() {
        while rank < k.min(ranking.len()) {
            let hit = truth.binary_search(&ranking[rank]).is_ok();
            rank += 1;
            if hit {
                hits += 1;
                gain += discounts.gain[rank - 1];
                precision_sum += hits as f64 / rank as f64;
                if first == 0 {
                    first = rank;
                }
            }
        }
        let possible = truth.len().min(k);
        let mut set = |metric: Metric, value: f64| out[metric.index() * ks.len() + c] = value;
        set(Metric::Precision, hits as f64 / k as f64);
        set(Metric::Recall, hits as f64 / relevant);
        set(Metric::Ndcg, gain / discounts.ideal[possible]);
        set(Metric::HitRate, if hits > 0 { 1.0 } else { 0.0 });
        set(Metric::Mrr, if first > 0 { 1.0 / first as f64 } else { 0.0 });
        set(Metric::Map, precision_sum / possible as f64);
        set(Metric::MapCut, precision_sum / relevant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ranking: &[u32], truth: &[u32], ks: &[usize], metric: Metric, c: usize) -> f64 {
        let mut out = vec![0.0; Metric::ALL.len() * ks.len()];
        measure(ranking, truth, ks, &Discounts::new(ks[ks.len() - 1]), &mut out);
        out[metric.index() * ks.len() + c]
    }

    #[test]
    fn worked_by_hand() {
        // The hits are at ranks 2 and 4 of 5, and three items are relevant.
        let (ranking, truth, ks) = ([9, 1, 8, 2, 7], [1, 2, 3], [1, 2, 5]);
        let get = |m, c| at(&ranking, &truth, &ks, m, c);
        assert_eq!(get(Metric::Precision, 0), 0.0);
        assert_eq!(get(Metric::Precision, 1), 0.5);
        assert_eq!(get(Metric::Precision, 2), 0.4);
        assert_eq!(get(Metric::Recall, 2), 2.0 / 3.0);
        assert_eq!(get(Metric::HitRate, 0), 0.0);
        assert_eq!(get(Metric::HitRate, 1), 1.0);
        assert_eq!(get(Metric::Mrr, 2), 0.5);
        assert_eq!(get(Metric::Map, 1), (0.5) / 2.0);
        assert_eq!(get(Metric::Map, 2), (0.5 + 0.5) / 3.0);
        assert_eq!(get(Metric::MapCut, 1), 0.5 / 3.0);
        let ideal = 1.0 + 1.0 / 3f64.log2() + 0.5;
        let gain = 1.0 / 3f64.log2() + 1.0 / 5f64.log2();
        assert!((get(Metric::Ndcg, 2) - gain / ideal).abs() < 1e-15);
        // At k = 2 the ideal list has only two of the three items.
        let ideal = 1.0 + 1.0 / 3f64.log2();
        assert!((get(Metric::Ndcg, 1) - (1.0 / 3f64.log2()) / ideal).abs() < 1e-15);
    }

    #[test]
    fn short_list_still_divides_by_k() {
        assert_eq!(at(&[1], &[1], &[5], Metric::Precision, 0), 0.2);
        assert_eq!(at(&[1], &[1], &[5], Metric::Ndcg, 0), 1.0);
        assert_eq!(at(&[], &[1], &[5], Metric::Ndcg, 0), 0.0);
    }

    #[test]
    fn all_is_in_index_order() {
        for (i, m) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(m.index(), i);
        }
    }
}
