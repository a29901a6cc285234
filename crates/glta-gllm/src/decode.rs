use std::cmp::Ordering;
use std::ops::Range;

use glta_metrics::Ranked;
use serde::{Deserialize, Serialize};

use crate::blocks::{LogSumExp, Logits, largest};
use crate::lists::{inside, sorted};
use crate::{Error, Result};

/// The rule that combines the logits of a user's slots into one ranked list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decoder {
    /// Each slot in turn adds its best item that is not yet in the list, until the list is full.
    /// This is the decoder of the paper's GLTA.
    Parallel,
    /// The list consists of the best items of the first slot. This is FL in the paper.
    FirstLogit,
    /// The list consists of the items with the highest mean log-probability over the slots.
    MeanSlots,
}

impl Decoder {
    /// Returns the number of a user's slots that the decoder reads.
    pub(crate) fn slots(self, slots: usize) -> usize {
        if self == Self::FirstLogit { slots.min(1) } else { slots }
    }
}

/// Returns the best `k` items of one user, best first. The score of an item is its log-probability
/// in the slot that added it, or with [`Decoder::MeanSlots`], its mean log-probability over the
/// slots.
///
/// `slots` contains one row of logits per slot, with one logit per item. Items of `excluded` are
/// not in the list. Ties go to the lower id. The list is shorter than `k` only if no item is left.
/// [`GllmHead::rank`](crate::GllmHead::rank) returns the same list without computing all logits at
/// once.
///
/// ```
/// use glta_gllm::{Decoder, decode};
///
/// let slots = [[0.0f32, 3.0, 1.0], [0.0, 3.0, 2.0]];
/// let items = |decoder| -> Result<Vec<u32>, glta_gllm::Error> {
///     Ok(decode(&slots, &[], 2, decoder)?.iter().map(|ranked| ranked.item).collect())
/// };
/// // Slot 1 adds item 1. It is taken, so slot 2 adds item 2.
/// assert_eq!(items(Decoder::Parallel)?, [1, 2]);
/// assert_eq!(items(Decoder::FirstLogit)?, [1, 2]);
/// # Ok::<(), glta_gllm::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the rows of `slots` have different lengths, and [`Error::NotANumber`] if a
/// logit is NaN or `+∞`.
pub fn decode(
    slots: &[impl AsRef<[f32]>],
    excluded: &[u32],
    k: usize,
    decoder: Decoder,
) -> Result<Vec<Ranked>> {
    let slots = &slots[..decoder.slots(slots.len())];
    let items = slots.first().map_or(0, |row| row.as_ref().len());
    if let Some(other) = slots.iter().map(|row| row.as_ref().len()).find(|&len| len != items) {
        let expected = format!("({items})");
        return Err(Error::Shape { what: "logits of a slot", expected, got: vec![other] });
    }
    if items == 0 {
        return Ok(Vec::new());
    }
    let mut rows: Vec<f32> = slots.iter().flat_map(|row| row.as_ref()).copied().collect();
    let mut ranking = Ranking::new(slots.len(), decoder);
    ranking.read(&mut rows, &(0..items), &sorted(&[excluded])[0], k)?;
    Ok(ranking.finish(k))
}

/// Applies [`decode`] to each user, that is to every `slots` rows of `logits`, in blocks of items.
pub(crate) fn rank(
    logits: &Logits<'_>,
    slots: usize,
    excluded: &[impl AsRef<[u32]>],
    k: usize,
    decoder: Decoder,
) -> Result<Vec<Vec<Ranked>>> {
    let excluded = sorted(excluded);
    let empty = || Ok(vec![Ranking::new(slots, decoder); excluded.len()]);
    let parts = logits.walk(logits.parts(empty), |state: &mut Result<Vec<_>>, range, block| {
        let Ok(rankings) = state else { return };
        let users = block.chunks_exact_mut(slots * range.len());
        for ((rows, ranking), excluded) in users.zip(rankings).zip(&excluded) {
            if let Err(error) = ranking.read(rows, &range, excluded, k) {
                *state = Err(error);
                return;
            }
        }
    });
    let mut whole: Vec<Ranking> = empty()?;
    for part in parts {
        whole.iter_mut().zip(part?).for_each(|(ranking, part)| ranking.merge(part, k));
    }
    Ok(whole.into_iter().map(|ranking| ranking.finish(k)).collect())
}

/// A user's ranking of the items that have been read so far.
#[derive(Clone)]
pub(crate) struct Ranking {
    /// The best items of each slot by logit. For [`Decoder::MeanSlots`], a single list by mean
    /// logit.
    lists: Vec<Vec<Ranked>>,
    /// Log-sum-exp of the logits of each slot.
    sums: Vec<LogSumExp>,
}

impl Ranking {
    fn new(slots: usize, decoder: Decoder) -> Self {
        let lists = if decoder == Decoder::Parallel { slots } else { slots.min(1) };
        Self { lists: vec![Vec::new(); lists], sums: vec![LogSumExp::EMPTY; slots] }
    }

    /// Creates a ranking from the best items of each list and the log-sum-exp of each slot.
    pub(crate) fn of(lists: Vec<Vec<Ranked>>, sums: Vec<LogSumExp>) -> Self {
        Self { lists, sums }
    }

    /// Reads the logits `(slots, items)` of the items in `range`, which must follow the items read
    /// before. Overwrites `logits`.
    fn read(
        &mut self,
        logits: &mut [f32],
        range: &Range<usize>,
        excluded: &[u32],
        k: usize,
    ) -> Result<()> {
        let width = range.len();
        for (slot, (row, sum)) in logits.chunks_exact(width).zip(&mut self.sums).enumerate() {
            *sum = sum.and(LogSumExp::of(row));
            if sum.is_nan() {
                let at = row.iter().position(|&l| l.is_nan() || l == f32::INFINITY).unwrap_or(0);
                return Err(Error::NotANumber { slot, item: range.start + at });
            }
        }
        let per_list = self.sums.len() / self.lists.len();
        for (rows, list) in logits.chunks_exact_mut(per_list * width).zip(&mut self.lists) {
            let (row, others) = rows.split_at_mut(width);
            if per_list > 1 {
                for other in others.chunks_exact(width) {
                    row.iter_mut().zip(other).for_each(|(sum, l)| *sum += l);
                }
                row.iter_mut().for_each(|l| *l /= per_list as f32);
            }
            inside(excluded, range).for_each(|at| row[at] = f32::NEG_INFINITY);
            // On a tie the earlier item stays.
            if list.len() == k && list.last().is_none_or(|last| largest(row) <= last.score) {
                continue;
            }
            let found = glta_metrics::best(row, k).unwrap_or_default();
            let found = found.into_iter();
            merge(list, found.map(|r| Ranked { item: r.item + range.start as u32, ..r }), k);
        }
        Ok(())
    }

    /// Merges a ranking of different items into this one, and keeps the best `k` items of each
    /// list.
    fn merge(&mut self, other: Self, k: usize) {
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, other)| *sum = sum.and(other));
        self.lists.iter_mut().zip(other.lists).for_each(|(list, other)| merge(list, other, k));
    }

    pub(crate) fn finish(mut self, k: usize) -> Vec<Ranked> {
        let per_list = self.sums.len() / self.lists.len().max(1);
        for (list, sums) in self.lists.iter_mut().zip(self.sums.chunks(per_list.max(1))) {
            let shift = sums.iter().map(|sum| sum.value()).sum::<f64>() / per_list as f64;
            list.iter_mut().for_each(|r| r.score = (f64::from(r.score) - shift) as f32);
        }
        take_turns(&self.lists, k)
    }
}

/// Merges another list into `list` and keeps the best `k` items, best first, ties by lower id.
pub(crate) fn merge(list: &mut Vec<Ranked>, others: impl IntoIterator<Item = Ranked>, k: usize) {
    list.extend(others);
    let by_score = |a: &Ranked, b: &Ranked| b.score.partial_cmp(&a.score);
    list.sort_by(|a, b| by_score(a, b).unwrap_or(Ordering::Equal).then(a.item.cmp(&b.item)));
    list.truncate(k);
}

/// Returns at most `k` items: the lists take turns, and each adds its best item that is not yet
/// taken. A list can lose at most `k - 1` items to the others, so `k` items per list are enough.
fn take_turns(lists: &[Vec<Ranked>], k: usize) -> Vec<Ranked> {
    if let [list] = lists {
        return list.clone();
    }
    let mut next = vec![0; lists.len()];
    let mut taken: Vec<Ranked> = Vec::new();
    while taken.len() < k {
        let before = taken.len();
        for (list, next) in lists.iter().zip(&mut next) {
            while *next < list.len() && taken.iter().any(|t| t.item == list[*next].item) {
                *next += 1;
            }
            if *next < list.len() && taken.len() < k {
                taken.push(list[*next]);
            }
        }
        if taken.len() == before {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(slots: &[Vec<f32>], excluded: &[u32], k: usize, decoder: Decoder) -> Vec<u32> {
        decode(slots, excluded, k, decoder).unwrap().iter().map(|r| r.item).collect()
    }

    #[test]
    fn worked_by_hand() {
        let slots = vec![vec![5.0, 4.0, 3.0, 0.0], vec![5.0, 1.0, 2.0, 4.0]];
        assert_eq!(items(&slots, &[], 4, Decoder::Parallel), [0, 3, 1, 2]);
        assert_eq!(items(&slots, &[], 2, Decoder::FirstLogit), [0, 1]);
        assert_eq!(items(&slots, &[0], 3, Decoder::Parallel), [1, 3, 2]);
        let mean = items(&slots, &[], 4, Decoder::MeanSlots);
        assert_eq!(mean, [0, 1, 2, 3]);
    }

    #[test]
    fn scores_are_log_probabilities() {
        let ranked = decode(&[vec![1.0f32, 1.0]], &[], 2, Decoder::FirstLogit).unwrap();
        assert_eq!(ranked[0].item, 0);
        assert!((ranked[0].score - 0.5f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_nan_is_an_error() {
        let bad = decode(&[vec![0.0, f32::NAN]], &[], 1, Decoder::Parallel).unwrap_err();
        assert!(matches!(bad, Error::NotANumber { slot: 0, item: 1 }));
        let bad = decode(&[vec![0.0], vec![f32::INFINITY]], &[], 1, Decoder::MeanSlots);
        assert!(matches!(bad, Err(Error::NotANumber { slot: 1, item: 0 })));
        assert!(decode(&[vec![0.0], vec![]], &[], 1, Decoder::MeanSlots).is_err());
    }

    #[test]
    fn k_above_the_item_count_returns_all_items() {
        let slots = [vec![1.0, 3.0, 2.0], vec![0.0, 1.0, 5.0]];
        for decoder in [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots] {
            assert_eq!(items(&slots, &[1], usize::MAX, decoder).len(), 2);
        }
    }

    proptest! {
        #[test]
        fn lists_are_full_distinct_and_allowed(
            slots in prop::collection::vec(prop::collection::vec(-5f32..5.0, 12), 1..6),
            excluded in prop::collection::vec(0u32..12, 0..12),
            k in 0usize..15,
        ) {
            let free = (0..12).filter(|i| !excluded.contains(i)).count();
            for decoder in [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots] {
                let got = items(&slots, &excluded, k, decoder);
                prop_assert_eq!(got.len(), k.min(free));
                let mut distinct = got.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), got.len());
                prop_assert!(got.iter().all(|i| !excluded.contains(i)));
            }
        }
    }
}
