//! Work on many items in parallel, the same for any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::Result;
use crate::idle::Idle;

/// Items of a piece of work, and pieces between two reports.
const RANGE: usize = 32;
const WAVE: usize = 256;

/// Gives the results of `work` on ranges that cover `0..n` to `take`, in their order. Every thread
/// has a scratch of its own, made by `init`; `advance` is called with the number of items done.
pub(crate) fn in_ranges<S: Send, T: Send>(
    n: usize,
    init: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(T),
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let idle = Idle::default();
    let ranges: Vec<Range<usize>> =
        (0..n).step_by(RANGE).map(|start| start..(start + RANGE).min(n)).collect();
    for wave in ranges.chunks(WAVE) {
        let done: Result<Vec<T>> = wave
            .into_par_iter()
            .map(|range| idle.with(&init, |scratch| work(scratch, range.clone())))
            .collect();
        done?.into_iter().for_each(&mut take);
        advance(wave.last().map_or(0, |range| range.end))?;
    }
    Ok(())
}
