//! Distributes work among the threads of the current rayon pool.

mod team;

use rayon::prelude::*;

use team::Team;

/// Runs `f` on a thread of rayon's current pool.
///
/// Entering the pool from outside costs a wake-up and a wait. If `f` contains many small parallel
/// regions, they pay this cost only once.
pub(crate) fn enter<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        Some(_) => f(),
        None => rayon::scope(|_| f()),
    }
}

/// Maximum number of tokens of a pass that runs as a [`Team`]. The parallel regions of such a pass
/// take only microseconds.
const TEAM_TOKENS: usize = 64;

/// Calls [`enter`] for a pass over `tokens` tokens. If `tokens` is at most [`TEAM_TOKENS`], the
/// other threads of the pool wait for work as a [`Team`].
pub(crate) fn enter_for<R: Send>(tokens: usize, f: impl FnOnce() -> R + Send) -> R {
    enter(|| match rayon::current_num_threads() - 1 {
        helpers if helpers > 0 && tokens <= TEAM_TOKENS => Team::default().lead(helpers, f),
        _ => f(),
    })
}

/// Calls `f` with every number below `n`, on any thread and in any order.
pub(crate) fn for_each(n: usize, f: impl Fn(usize) + Send + Sync) {
    if n == 1 || rayon::current_num_threads() == 1 {
        (0..n).for_each(f);
    } else if !team::share(n, &f) {
        (0..n).into_par_iter().for_each(f);
    }
}
