//! Intermediate results that several systems of a seed share, computed on first use.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

/// A map with at most one value per type.
#[derive(Default)]
pub(crate) struct Shared(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Shared {
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.0.get(&TypeId::of::<T>())?).downcast().ok()
    }

    pub(crate) fn put<T: Send + Sync + 'static>(&mut self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        self.0.insert(TypeId::of::<T>(), Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        value
    }

    /// Drops the value of type `T`. Call this only if no later system needs it.
    pub(crate) fn remove<T: 'static>(&mut self) {
        self.0.remove(&TypeId::of::<T>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_type() {
        let mut shared = Shared::default();
        assert_eq!(shared.get::<u32>(), None);
        let put = shared.put(7u32);
        shared.put("text".to_owned());
        assert!(Arc::ptr_eq(&put, &shared.get::<u32>().unwrap()));
        shared.remove::<u32>();
        assert_eq!((shared.get::<u32>(), shared.get::<String>().unwrap().as_str()), (None, "text"));
    }
}
