//! Counts co-occurrences of items.

use glta_core::{pick, stream};
use glta_data::Interactions;
use rustc_hash::FxHashMap;

use crate::Result;
use crate::keep::keep_best;
use crate::ranges::in_ranges;

/// Maximum number of items per user whose pairs are counted if rows are truncated. Longer lists are
/// sampled, because the number of pairs is quadratic in the length of a list.
pub(crate) const LONGEST_LIST: usize = 2_000;

/// Off-diagonal entries of `XᵀX` by rows. A row may be truncated to the entries with the largest
/// `count / √(degree + 1)`, so a pair may be in only one of its two rows.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    offsets: Vec<usize>,
    items: Vec<u32>,
    counts: Vec<u32>,
    /// Rows that were changed or added.
    changed: FxHashMap<u32, (Vec<u32>, Vec<u32>)>,
    longest: usize,
}

#[derive(Default)]
struct Scratch {
    counts: Vec<u32>,
    touched: Vec<u32>,
}

struct Piece {
    lengths: Vec<usize>,
    items: Vec<u32>,
    counts: Vec<u32>,
}

impl Counts {
    /// Counts the co-occurrences of items and keeps at most `longest` of them per item. If rows are
    /// truncated, the items of users with more than [`LONGEST_LIST`] items are sampled.
    pub(crate) fn new(
        train: &Interactions,
        longest: usize,
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let n = train.n_items();
        let capped = if longest == usize::MAX { train.clone() } else { capped(train) };
        let users_of = capped.transpose();
        let roots: Vec<f32> =
            train.item_degrees().iter().map(|&d| 1.0 / (d as f32 + 1.0).sqrt()).collect();
        let (starts, lists) = (capped.offsets(), capped.column_indices());
        let init = || Scratch { counts: vec![0; n], touched: Vec::new() };
        let (mut all, mut end) = (Self::empty(longest), 0);
        in_ranges(
            n,
            init,
            |scratch, range| {
                let mut piece =
                    Piece { lengths: Vec::new(), items: Vec::new(), counts: Vec::new() };
                for item in range {
                    let Scratch { counts, touched } = &mut *scratch;
                    for &user in users_of.items(item as u32) {
                        let list = starts[user as usize]..starts[user as usize + 1];
                        for &other in &lists[list] {
                            let count = &mut counts[other as usize];
                            if *count == 0 {
                                touched.push(other);
                            }
                            *count += 1;
                        }
                    }
                    let strength = |i: u32| counts[i as usize] as f32 * roots[i as usize];
                    let mut kept: Vec<u32> =
                        touched.iter().copied().filter(|&i| i as usize != item).collect();
                    keep_best(&mut kept, longest, strength);
                    kept.sort_unstable();
                    piece.lengths.push(kept.len());
                    piece.counts.extend(kept.iter().map(|&i| counts[i as usize]));
                    piece.items.extend(kept);
                    touched.drain(..).for_each(|i| counts[i as usize] = 0);
                }
                Ok(piece)
            },
            |piece| {
                for length in piece.lengths {
                    end += length;
                    all.offsets.push(end);
                }
                all.items.extend_from_slice(&piece.items);
                all.counts.extend_from_slice(&piece.counts);
            },
            advance,
        )?;
        Ok(all)
    }

    fn empty(longest: usize) -> Self {
        let (offsets, items, counts) = (vec![0], Vec::new(), Vec::new());
        Self { offsets, items, counts, changed: FxHashMap::default(), longest }
    }

    /// Returns an upper bound of the number of pairs, in both directions, in complete rows.
    pub(crate) fn most_pairs(train: &Interactions) -> u64 {
        let squares: u64 =
            (0..train.n_users() as u32).map(|user| (train.items(user).len() as u64).pow(2)).sum();
        squares.min((train.n_items() as u64).pow(2))
    }

    /// Returns the items that co-occur with an item, in ascending order, and their counts.
    pub(crate) fn row(&self, item: usize) -> (&[u32], &[u32]) {
        if !self.changed.is_empty()
            && let Some((items, counts)) = self.changed.get(&(item as u32))
        {
            return (items, counts);
        }
        match (self.offsets.get(item), self.offsets.get(item + 1)) {
            (Some(&start), Some(&end)) => (&self.items[start..end], &self.counts[start..end]),
            // A new item has no interactions.
            _ => (&[], &[]),
        }
    }

    /// Increments the count of a pair in both rows. A pair that is not in a row was never counted
    /// or was truncated. It is added if the row has space.
    pub(crate) fn add(&mut self, a: u32, b: u32) {
        self.change(a, b, |(items, counts), b, longest| match items.binary_search(&b) {
            Ok(at) => counts[at] += 1,
            Err(at) if items.len() < longest => {
                items.insert(at, b);
                counts.insert(at, 1);
            }
            Err(_) => {}
        });
    }

    /// Decrements the count of a pair in the rows that contain it.
    pub(crate) fn subtract(&mut self, a: u32, b: u32) {
        self.change(a, b, |(items, counts), b, _| {
            if let Ok(at) = items.binary_search(&b) {
                counts[at] -= 1;
                if counts[at] == 0 {
                    items.remove(at);
                    counts.remove(at);
                }
            }
        });
    }
}

type Row = (Vec<u32>, Vec<u32>);

impl Counts {
    fn change(&mut self, a: u32, b: u32, change: impl Fn(&mut Row, u32, usize)) {
        for (a, b) in [(a, b), (b, a)] {
            if !self.changed.contains_key(&a) {
                let (items, counts) = self.row(a as usize);
                let row = (items.to_vec(), counts.to_vec());
                self.changed.insert(a, row);
            }
            if let Some(row) = self.changed.get_mut(&a) {
                change(row, b, self.longest);
            }
        }
    }
}

/// Returns the interactions whose pairs are counted if rows are truncated: long lists are sampled.
pub(crate) fn capped(train: &Interactions) -> Interactions {
    if (0..train.n_users() as u32).all(|user| train.items(user).len() <= LONGEST_LIST) {
        return train.clone();
    }
    let (mut of, mut kept) = (u32::MAX, Vec::new());
    train.filter(|user, item| {
        if of != user {
            (of, kept) = (user, counted(user, train.items(user)));
        }
        kept.binary_search(&item).is_ok()
    })
}

/// Returns the items of a user whose pairs are counted.
pub(crate) fn counted(user: u32, items: &[u32]) -> Vec<u32> {
    if items.len() <= LONGEST_LIST {
        return items.to_vec();
    }
    pick(items, LONGEST_LIST, &mut stream(0, "long list", &[user.into()]))
}
