//! Rankings of many users, block by block.

use crate::select::{NanAt, Selector};
use crate::{Error, Ranked, Result, Scorer};
use glta_data::Interactions;
use ndarray::ArrayViewMut2;
use rayon::prelude::*;

/// Scores of a block that should stay in the second-level cache (2 MB).
const CACHED_SCORES: usize = 512 << 10;
/// Scores of a block where all items must be scored at once (16 MB).
const MOST_SCORES: usize = 4 << 20;

/// Refuses a matrix over another catalogue than the scorer's.
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

/// Scores `users` block by block and hands every row's best items to `keep`.
/// Returns what was kept, and the length of each row's ranking, per block.
///
/// The partition depends on sizes only, so every thread count sees the same
/// matrix products.
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
    let (block_users, block_items) = if scorer.scores_item_ranges() {
        let block_items = (CACHED_SCORES / block_users).clamp(1, n_items.max(1));
        (block_users, block_items)
    } else {
        let fitting = MOST_SCORES / n_items.max(1);
        (fitting.clamp(1, block_users), n_items.max(1))
    };
    let run = |memory: &mut Memory, block: &[u32]| {
        memory.rank(scorer, block, masked, allowed.as_deref(), k, block_items)?;
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

/// Which items are among the candidates.
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

/// What a thread needs to rank blocks of users.
struct Memory {
    scores: Vec<f32>,
    selector: Selector,
    /// The ranking of each user of the block.
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
