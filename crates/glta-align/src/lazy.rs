//! A value that is computed on first use, and whose computation may fail.

use std::sync::{Mutex, OnceLock, PoisonError};

/// A [`OnceLock`] whose initialisation may fail and is then tried again.
#[derive(Debug)]
pub(crate) struct Lazy<T> {
    value: OnceLock<T>,
    /// Mutex that the thread holds while it computes the value, so that other threads wait.
    making: Mutex<()>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), making: Mutex::new(()) }
    }
}

impl<T> Lazy<T> {
    pub(crate) fn ready(value: T) -> Self {
        Self { value: OnceLock::from(value), making: Mutex::new(()) }
    }

    /// Returns the value. The first call computes it, and other threads wait for it.
    pub(crate) fn get<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = make()?;
        Ok(self.value.get_or_init(|| value))
    }

    #[cfg(test)]
    pub(crate) fn is_made(&self) -> bool {
        self.value.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_computed_once_and_again_after_a_failure() {
        let lazy = Lazy::default();
        assert_eq!(lazy.get(|| Err::<u32, _>("no")), Err("no"));
        assert_eq!(lazy.get(|| Ok::<u32, &str>(3)), Ok(&3));
        assert_eq!(lazy.get(|| Err("not asked")), Ok(&3));
        assert_eq!(Lazy::ready(4).get(|| Err("not asked")), Ok(&4));
    }
}
