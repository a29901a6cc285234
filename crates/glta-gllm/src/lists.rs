//! Lists of items beside rows of logits: targets, masked and excluded items.

use std::ops::Range;

/// Stands for minus infinity where a masked logit is overwritten; finite, so
/// that no `∞ − ∞` can arise.
pub(crate) const MASKED: f32 = -1e30;

/// Share of each target in its row's loss.
pub(crate) fn share(list: &[u32]) -> f32 {
    1.0 / list.len() as f32
}

/// The part of an ascending list that lies in `range`, counted from its start.
pub(crate) fn inside(list: &[u32], range: &Range<usize>) -> impl Iterator<Item = usize> {
    let at = |bound: usize| list.partition_point(|&item| (item as usize) < bound);
    let start = range.start;
    list[at(start)..at(range.end)].iter().map(move |&item| item as usize - start)
}

/// Ascending copies.
pub(crate) fn sorted(lists: &[impl AsRef<[u32]>]) -> Vec<Vec<u32>> {
    let sort = |list: &[u32]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    lists.iter().map(|list| sort(list.as_ref())).collect()
}
