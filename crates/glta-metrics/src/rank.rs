//! Ranks the items of many users, block by block.

use crate::select::{NanAt, Selector};
use crate::{Error, Ranked, Result, Scorer};
use glta_data::Interactions;
use ndarray::ArrayViewMut2;
use rayon::prelude::*;

/// Maximum number of scores in a block, so that the block stays in the second-level cache (2 MB).
const CACHED_SCORES: usize = 512 << 10;
/// Maximum number of scores in a block of a scorer that scores all items at once (16 MB).
const MOST_SCORES: usize = 4 << 20;

/// Checks that a matrix has as many items as the scorer.
pub(crate) fn check_items(
    what: &'static str,
    scorer: &dyn Scorer,
    matrix: &Interactions,
) -> Result<()> {
    if matrix.n_items() == scorer.n_items() {
        return Ok(());
    }
    Err(Error::Shape { what, expected: scorer.n_items(), got: matrix.n_items() })
}

/// Scores `users` in blocks and passes the best items of each row to `keep`. Returns the kept
/// values and the length of each row's ranking, per block.
///
/// The blocks depend on sizes only, so the matrix products are the same at any number of threads.
pub(crate) fn rank<T: Default + Send>(
    scorer: &dyn Scorer,
    users: &[u32],
    masked: &[&Interactions],
    candidates: Option<&[u32]>,
    k: usize,
    block_users: usize,
    keep: impl Fn(&[Ranked], &mut T) + Sync,
) -> Result<Vec<(T, Vec<usize>)>> {
    for matrix in masked {
        check_items("items in a masked matrix", scorer, matrix)?;
    }
    let n_items = scorer.n_items();
    let allowed = candidates.map(|items| allowed(items, n_items)).transpose()?;
    let fitting = (MOST_SCORES / n_items.max(1)).clamp(1, block_users);
    let (block_users, block_items) = if scorer.lists_itself() {
        // With candidates, each user excludes nearly the whole catalogue.
        (if allowed.is_some() { fitting } else { block_users }, n_items)
    } else if scorer.scores_item_ranges() {
        (block_users, (CACHED_SCORES / block_users).clamp(1, n_items.max(1)))
    } else {
        (fitting, n_items.max(1))
    };
    let run = |memory: &mut Memory, block: &[u32]| {
        if scorer.lists_itself() {
            memory.ranked = lists(scorer, block, masked, allowed.as_deref(), k)?;
        } else {
            memory.rank(scorer, block, masked, allowed.as_deref(), k, block_items)?;
        }
        let mut kept = (T::default(), Vec::with_capacity(block.len()));
        for ranked in &memory.ranked[..block.len()] {
            keep(ranked, &mut kept.0);
            kept.1.push(ranked.len());
        }
        Ok(kept)
    };
    if scorer.parallel() {
        let blocks = users.par_chunks(block_users);
        blocks.map_init(Memory::new, run).collect()
    } else {
        let mut memory = Memory::new();
        let blocks = users.chunks(block_users);
        blocks.map(|block| run(&mut memory, block)).collect()
    }
}

/// Returns, for each item, whether it is a candidate.
fn allowed(candidates: &[u32], n_items: usize) -> Result<Vec<bool>> {
    let mut allowed = vec![false; n_items];
    for &item in candidates {
        match allowed.get_mut(item as usize) {
            Some(allowed) => *allowed = true,
            None => {
                let problem = "names an item that the scorer does not have";
                return Err(Error::Config { field: "candidates", problem });
            }
        }
    }
    Ok(allowed)
}

/// Returns the scorer's own lists of one block of users, after checking them.
fn lists(
    scorer: &dyn Scorer,
    block: &[u32],
    masked: &[&Interactions],
    allowed: Option<&[bool]>,
    k: usize,
) -> Result<Vec<Vec<Ranked>>> {
    let others: Vec<u32> = match allowed {
        Some(allowed) => allowed.iter().zip(0..).filter(|(a, _)| !**a).map(|(_, i)| i).collect(),
        None => Vec::new(),
    };
    let excluded = |&user: &u32| {
        let mut items = others.clone();
        masked.iter().for_each(|matrix| items.extend_from_slice(matrix.items(user)));
        items.sort_unstable();
        items.dedup();
        items
    };
    let excluded: Vec<Vec<u32>> = block.iter().map(excluded).collect();
    let lists = scorer.top_k(block, k, &excluded).map_err(|e| scorer_error(block, e))?;
    if lists.len() != block.len() {
        let what = "lists of a scorer that lists items itself";
        return Err(Error::Shape { what, expected: block.len(), got: lists.len() });
    }
    let mut seen = Vec::new();
    for ((&user, list), excluded) in block.iter().zip(&lists).zip(&excluded) {
        if let Some(ranked) = list.iter().find(|ranked| ranked.score.is_nan()) {
            return Err(Error::NanScore { user, item: ranked.item });
        }
        check_list(user, list.iter().map(|r| r.item), scorer.n_items(), &mut seen)?;
        let taken = list.iter().find(|r| excluded.binary_search(&r.item).is_ok());
        let problem = if let Some(ranked) = taken {
            format!("holds item {}, which was excluded", ranked.item)
        } else if list.len() > k {
            format!("has {} items, but {k} were asked for", list.len())
        } else {
            continue;
        };
        return Err(Error::Ranking { user, problem });
    }
    Ok(lists)
}

/// Returns an error for a list with a repeated item or an item outside the catalogue. `seen` is
/// reusable memory.
pub(crate) fn check_list(
    user: u32,
    items: impl Iterator<Item = u32>,
    n_items: usize,
    seen: &mut Vec<u32>,
) -> Result<()> {
    seen.clear();
    seen.extend(items);
    seen.sort_unstable();
    let problem = if let Some(pair) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
        format!("holds item {} twice", pair[0])
    } else if let Some(&item) = seen.last().filter(|&&item| item as usize >= n_items) {
        format!("holds item {item}, but there are {n_items} items")
    } else {
        return Ok(());
    };
    Err(Error::Ranking { user, problem })
}

/// Reusable buffers of one thread.
struct Memory {
    scores: Vec<f32>,
    selector: Selector,
    /// Rankings of the users of the block.
    ranked: Vec<Vec<Ranked>>,
}

impl Memory {
    fn new() -> Self {
        Self { scores: Vec::new(), selector: Selector::new(), ranked: Vec::new() }
    }

    /// Ranks one block of users over all blocks of items.
    fn rank(
        &mut self,
        scorer: &dyn Scorer,
        block: &[u32],
        masked: &[&Interactions],
        allowed: Option<&[bool]>,
        k: usize,
        block_items: usize,
    ) -> Result<()> {
        let n_items = scorer.n_items();
        let rows = self.ranked.len().max(block.len());
        self.ranked.resize_with(rows, Vec::new);
        self.ranked.iter_mut().for_each(Vec::clear);
        for first in (0..n_items).step_by(block_items) {
            let width = block_items.min(n_items - first);
            self.scores.resize(block.len() * width, 0.0);
            let shape = (block.len(), width);
            let out = ArrayViewMut2::from_shape(shape, self.scores.as_mut_slice())
                .map_err(|e| scorer_error(block, Box::new(e)))?;
            let scored = if width == n_items {
                scorer.score(block, out)
            } else {
                scorer.score_items(block, first, out)
            };
            scored.map_err(|e| scorer_error(block, e))?;
            let rows = self.scores.chunks_exact_mut(width);
            for ((&user, row), best) in block.iter().zip(rows).zip(&mut self.ranked) {
                for matrix in masked {
                    let items = matrix.items(user);
                    let start = items.partition_point(|&i| (i as usize) < first);
                    let inside = items[start..].iter().map(|&i| i as usize - first);
                    for at in inside.take_while(|&at| at < width) {
                        row[at] = f32::NEG_INFINITY;
                    }
                }
                if let Some(allowed) = allowed {
                    let allowed = &allowed[first..first + width];
                    for (score, _) in row.iter_mut().zip(allowed).filter(|(_, a)| !**a) {
                        *score = f32::NEG_INFINITY;
                    }
                }
                let merged = self.selector.merge(row, first as u32, k, best);
                merged.map_err(|NanAt(at)| Error::NanScore { user, item: (first + at) as u32 })?;
            }
        }
        Ok(())
    }
}

fn scorer_error(block: &[u32], source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Scorer { first: block.first().copied().unwrap_or(0), users: block.len(), source }
}
