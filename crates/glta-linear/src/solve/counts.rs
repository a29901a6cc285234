//! How often items are had together.

use glta_core::{pick, stream};
use glta_data::Interactions;

use crate::Result;
use crate::ranges::in_ranges;

/// A longer list of a user is sampled down to this many items for counting: the pairs of a
/// list grow with its square.
pub(crate) const LONGEST_LIST: usize = 2_000;

/// Off-diagonal entries of `XᵀX` by rows. A row may be cut to its largest entries by
/// `count / √(degree + 1)`, so that a pair can be in one of its two rows alone.
#[derive(Debug)]
pub(crate) struct Counts {
    offsets: Vec<usize>,
    items: Vec<u32>,
    counts: Vec<u32>,
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
    /// Counts pairs and keeps at most `longest` an item.
    pub(crate) fn new(
        train: &Interactions,
        longest: usize,
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let n = train.n_items();
        let capped = capped(train);
        let users_of = capped.transpose();
        let roots: Vec<f32> =
            train.item_degrees().iter().map(|&d| 1.0 / (d as f32 + 1.0).sqrt()).collect();
        let init = || Scratch { counts: vec![0; n], touched: Vec::new() };
        let pieces = in_ranges(
            n,
            init,
            |scratch, range| {
                let mut piece =
                    Piece { lengths: Vec::new(), items: Vec::new(), counts: Vec::new() };
                for item in range {
                    let Scratch { counts, touched } = &mut *scratch;
                    for &user in users_of.items(item as u32) {
                        for &other in capped.items(user) {
                            if counts[other as usize] == 0 {
                                touched.push(other);
                            }
                            counts[other as usize] += 1;
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
            advance,
        )?;
        let entries = pieces.iter().map(|piece| piece.items.len()).sum();
        let mut all = Self {
            offsets: Vec::with_capacity(n + 1),
            items: Vec::with_capacity(entries),
            counts: Vec::with_capacity(entries),
        };
        let mut end = 0;
        all.offsets.push(0);
        for piece in pieces {
            for length in piece.lengths {
                end += length;
                all.offsets.push(end);
            }
            all.items.extend(piece.items);
            all.counts.extend(piece.counts);
        }
        Ok(all)
    }

    /// At most this many pairs there are, both ways.
    pub(crate) fn most_pairs(train: &Interactions) -> u64 {
        let squares: u64 = (0..train.n_users() as u32)
            .map(|user| (train.items(user).len().min(LONGEST_LIST) as u64).pow(2))
            .sum();
        squares.min((train.n_items() as u64).pow(2))
    }

    /// The items that are had together with one, ascending, and how often.
    pub(crate) fn row(&self, item: usize) -> (&[u32], &[u32]) {
        let range = self.offsets[item]..self.offsets[item + 1];
        (&self.items[range.clone()], &self.counts[range])
    }
}

/// Keeps the `n` items of largest `strength`, in any order; ties go to the lower id.
pub(crate) fn keep_best(items: &mut Vec<u32>, n: usize, strength: impl Fn(u32) -> f32) {
    if items.len() > n {
        if n > 0 {
            items.select_nth_unstable_by(n - 1, |&a, &b| {
                strength(b).total_cmp(&strength(a)).then(a.cmp(&b))
            });
        }
        items.truncate(n);
    }
}

/// Long lists are sampled.
fn capped(train: &Interactions) -> Interactions {
    if (0..train.n_users() as u32).all(|user| train.items(user).len() <= LONGEST_LIST) {
        return train.clone();
    }
    let (mut of, mut kept) = (u32::MAX, Vec::new());
    train.filter(|user, item| {
        let items = train.items(user);
        if items.len() <= LONGEST_LIST {
            return true;
        }
        if of != user {
            of = user;
            kept = pick(items, LONGEST_LIST, &mut stream(0, "long list", &[user.into()]));
        }
        kept.binary_search(&item).is_ok()
    })
}
