//! Lists of items per row: targets, masked items, excluded items.

use std::ops::Range;

/// Value of a masked logit. It is finite, so that `∞ − ∞` cannot occur.
pub(crate) const MASKED: f32 = -1e30;

/// Returns the weight of each target in the loss of a row with the targets `list`: one divided by
/// their number.
pub(crate) fn share(list: &[u32]) -> f32 {
    1.0 / list.len() as f32
}

/// Returns the entries of an ascending list that are in `range`, relative to its start.
pub(crate) fn inside(list: &[u32], range: &Range<usize>) -> impl Iterator<Item = usize> {
    let at = |bound: usize| list.partition_point(|&item| (item as usize) < bound);
    let start = range.start;
    list[at(start)..at(range.end)].iter().map(move |&item| item as usize - start)
}

/// Returns sorted copies of the lists.
pub(crate) fn sorted(lists: &[impl AsRef<[u32]>]) -> Vec<Vec<u32>> {
    let sort = |list: &[u32]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    lists.iter().map(|list| sort(list.as_ref())).collect()
}
