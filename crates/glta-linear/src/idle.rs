//! Reuses working memory between parallel tasks.

use std::sync::Mutex;

/// A pool of working memory that no thread uses at the moment.
#[derive(Debug)]
pub(crate) struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Idle<T> {
    /// Calls `work` with memory from the pool, or with new memory if the pool is empty.
    pub(crate) fn with<R>(&self, new: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        let taken = self.0.lock().ok().and_then(|mut idle| idle.pop());
        let mut memory = taken.unwrap_or_else(new);
        let result = work(&mut memory);
        if let Ok(mut idle) = self.0.lock() {
            idle.push(memory);
        }
        result
    }
}
