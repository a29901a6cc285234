//! Reuses working memory.

use std::sync::Mutex;

/// Working memory that no thread uses.
#[derive(Debug)]
pub(crate) struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Idle<T> {
    /// Calls `work` with unused memory, or with new memory if there is none.
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
