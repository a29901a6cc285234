/// Runs `f` on a thread of rayon's current pool.
///
/// Entering the pool from outside costs a wake-up and a wait, which hundreds
/// of small parallel regions would pay one by one.
pub(crate) fn enter<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        Some(_) => f(),
        None => rayon::scope(|_| f()),
    }
}
