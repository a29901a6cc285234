//! Runs parallel work on many items, with the same result for any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::Result;
use crate::idle::Idle;

/// Number of items per range.
const RANGE: usize = 32;
/// Number of ranges between two progress reports.
const WAVE: usize = 256;

/// Passes the results of `work` on ranges that cover `0..n` to `take`, in order. `init` creates the
/// scratch memory of each thread. `advance` is called with the number of finished items.
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
