//! Selects the `k` best scores of one row.
//!
//! One vectorised pass computes the maximum of every run of [`RUN`] scores. The k-th largest of
//! these maxima is a lower bound of the k-th best score, so only the few runs that reach it are
//! read again.

use pulp::{Arch, WithSimd};

/// An item and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Id of the item.
    pub item: u32,
    /// The score that the scorer gave the item.
    pub score: f32,
}

/// Number of scores per run.
const RUN: usize = 32;

/// Reusable buffers of [`Selector::merge`].
pub(crate) struct Selector {
    arch: Arch,
    maxima: Vec<f32>,
    sorted: Vec<f32>,
    /// Order keys ([`key`]) of the candidates.
    candidates: Vec<u64>,
}

/// Returns the `k` best items of one row of scores, best first, ties by lower item id. Returns
/// `None` if a score is NaN. Items with score −∞ are left out, so the list may be shorter than `k`.
///
/// ```
/// let best = glta_metrics::best(&[0.5, f32::NEG_INFINITY, 2.0, 0.5], 2);
/// let items: Vec<u32> = best.into_iter().flatten().map(|r| r.item).collect();
/// assert_eq!(items, [2, 0]);
/// ```
pub fn best(scores: &[f32], k: usize) -> Option<Vec<Ranked>> {
    let mut ranked = Vec::new();
    Selector::new().merge(scores, 0, k, &mut ranked).ok().map(|()| ranked)
}

/// Index of a NaN among the scores.
pub(crate) struct NanAt(pub(crate) usize);

impl Selector {
    pub(crate) fn new() -> Self {
        Self { arch: Arch::new(), maxima: Vec::new(), sorted: Vec::new(), candidates: Vec::new() }
    }

    /// Merges the items `first_item..` with the given `scores` into `best`, which contains the best
    /// `k` items of lower ids: best first, ties by lower item id. Items with score −∞ are left out,
    /// so `best` may stay shorter than `k`.
    pub(crate) fn merge(
        &mut self,
        scores: &[f32],
        first_item: u32,
        k: usize,
        best: &mut Vec<Ranked>,
    ) -> Result<(), NanAt> {
        let nan = self.arch.dispatch(RunMaxima { scores, maxima: &mut self.maxima });
        if nan {
            let at = scores.iter().position(|s| s.is_nan()).unwrap_or(0);
            return Err(NanAt(at));
        }
        if k == 0 {
            return Ok(());
        }
        // This is a lower bound of the k-th best score.
        let threshold = match best.get(k - 1) {
            Some(last) => last.score,
            None if self.maxima.len() <= k => f32::NEG_INFINITY,
            None => {
                self.sorted.clear();
                self.sorted.extend_from_slice(&self.maxima);
                let (_, kth, _) = self.sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
                *kth
            }
        };
        // Room for a few times k makes pruning rare. In the worst case, a row full of ties,
        // candidates are pruned once per `capacity - k` additions.
        let capacity = k.saturating_mul(4).max(64);
        let mut least = key(threshold, u32::MAX).max(key(f32::NEG_INFINITY, 0) + 1);
        self.candidates.clear();
        for (run, &max) in self.maxima.iter().enumerate() {
            if max < threshold {
                continue;
            }
            let start = run * RUN;
            let end = (start + RUN).min(scores.len());
            for (offset, &score) in scores[start..end].iter().enumerate() {
                let key = key(score, first_item + (start + offset) as u32);
                if key >= least {
                    self.candidates.push(key);
                }
            }
            if self.candidates.len() >= capacity {
                self.candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
                self.candidates.truncate(k);
                least = self.candidates[k - 1];
            }
        }
        if self.candidates.is_empty() {
            return Ok(());
        }
        self.candidates.extend(best.drain(..).map(|r| key(r.score, r.item)));
        self.candidates.sort_unstable_by(|a, b| b.cmp(a));
        best.extend(self.candidates.iter().take(k).copied().map(unkey));
        Ok(())
    }
}

/// Encodes a score and an item as a number that orders by score, and on a tie puts the lower id
/// first.
///
/// `score` must not be NaN. Adding zero turns −0 into +0, so that the two tie.
fn key(score: f32, item: u32) -> u64 {
    let bits = (score + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits };
    (u64::from(ordered) << 32) | u64::from(!item)
}

/// Decodes the item and the score of a [`key`].
fn unkey(key: u64) -> Ranked {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered & 0x7fff_ffff } else { !ordered };
    Ranked { item: !(key as u32), score: f32::from_bits(bits) }
}

/// The operation that writes the maximum of every run, and returns whether any score is NaN.
struct RunMaxima<'a> {
    scores: &'a [f32],
    maxima: &'a mut Vec<f32>,
}

impl WithSimd for RunMaxima<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> bool {
        // Use plain lanes; the dispatch compiles them for each instruction set.
        const LANES: usize = 16;
        self.maxima.clear();
        let (runs, rest) = self.scores.as_chunks::<RUN>();
        let mut nan = false;
        for run in runs {
            let mut best = [f32::NEG_INFINITY; LANES];
            let mut bad = [false; LANES];
            for lanes in run.as_chunks::<LANES>().0 {
                for l in 0..LANES {
                    bad[l] |= lanes[l].is_nan();
                    best[l] = if lanes[l] > best[l] { lanes[l] } else { best[l] };
                }
            }
            nan |= bad.iter().any(|&b| b);
            let mut width = LANES / 2;
            while width > 0 {
                for l in 0..width {
                    best[l] = best[l].max(best[l + width]);
                }
                width /= 2;
            }
            self.maxima.push(best[0]);
        }
        if !rest.is_empty() {
            nan |= rest.iter().any(|s| s.is_nan());
            self.maxima.push(rest.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b)));
        }
        nan
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_sorting(scores: &[f32], k: usize) -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..scores.len() as u32).filter(|&i| scores[i as usize] != f32::NEG_INFINITY).collect();
        // A stable sort keeps ties in the order of their ids.
        ids.sort_by(|&a, &b| scores[b as usize].partial_cmp(&scores[a as usize]).unwrap());
        ids.truncate(k);
        ids
    }

    fn best(scores: &[f32], k: usize) -> Vec<u32> {
        let mut out = Vec::new();
        assert!(Selector::new().merge(scores, 0, k, &mut out).is_ok());
        out.iter().map(|r| r.item).collect()
    }

    #[test]
    fn k_above_the_item_count_returns_all_items() {
        let scores: Vec<f32> = (0..1000).map(|n| ((n * 7) % 13) as f32).collect();
        assert_eq!(best(&scores, usize::MAX), by_sorting(&scores, usize::MAX));
    }

    proptest! {
        #[test]
        fn equals_a_stable_sort(
            scores in prop::collection::vec(
                prop_oneof![
                    Just(f32::NEG_INFINITY), Just(0.0), Just(-0.0), Just(1.0),
                    Just(f32::INFINITY), Just(f32::MIN), -1e3f32..1e3
                ],
                0..700,
            ),
            k in 0usize..50,
        ) {
            prop_assert_eq!(best(&scores, k), by_sorting(&scores, k));
        }

        #[test]
        fn parts_merge_to_the_whole(
            levels in prop::collection::vec(-3i8..4, 0..900),
            k in 0usize..50,
            part in 1usize..400,
        ) {
            let scores: Vec<f32> = levels.into_iter().map(f32::from).collect();
            let mut selector = Selector::new();
            let mut merged = Vec::new();
            for (n, chunk) in scores.chunks(part).enumerate() {
                prop_assert!(selector.merge(chunk, (n * part) as u32, k, &mut merged).is_ok());
            }
            prop_assert_eq!(
                merged.iter().map(|r| r.item).collect::<Vec<_>>(),
                by_sorting(&scores, k)
            );
            for r in merged {
                prop_assert_eq!(r.score, scores[r.item as usize]);
            }
        }

        #[test]
        fn many_ties(levels in prop::collection::vec(0u8..3, 0..3000), k in 1usize..40) {
            let scores: Vec<f32> = levels.into_iter().map(f32::from).collect();
            prop_assert_eq!(best(&scores, k), by_sorting(&scores, k));
        }
    }

    #[test]
    fn rising_scores_and_exhausted_rows() {
        let rising: Vec<f32> = (0..5000).map(|i| i as f32).collect();
        assert_eq!(best(&rising, 3), [4999, 4998, 4997]);
        assert_eq!(best(&[f32::NEG_INFINITY; 100], 5), [] as [u32; 0]);
        assert_eq!(best(&[], 5), [] as [u32; 0]);
    }

    #[test]
    fn finds_a_nan_at_any_position() {
        for at in [0, 15, 16, 31, 32, 63, 64, 69] {
            let mut scores = vec![1.0f32; 70];
            scores[at] = f32::NAN;
            match Selector::new().merge(&scores, 0, 4, &mut Vec::new()) {
                Err(NanAt(found)) => assert_eq!(found, at),
                Ok(()) => panic!("NaN at {at} went unnoticed"),
            }
        }
    }
}
