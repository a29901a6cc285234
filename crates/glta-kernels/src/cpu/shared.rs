/// A pointer that tasks share to write disjoint elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: callers ensure that no two tasks access the same element.
unsafe impl<T: Send> Send for Shared<T> {}
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// Shares the uninitialised capacity of an empty vector.
    pub(crate) fn spare(vector: &mut Vec<T>) -> Self {
        Self(vector.as_mut_ptr())
    }

    /// Returns a pointer to the element at `offset`.
    ///
    /// # Safety
    /// `offset` must lie inside the slice.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        self.0.add(offset)
    }

    /// Returns the slice of `len` elements from `offset`.
    ///
    /// # Safety
    /// The range must lie inside the slice and belong to the calling task.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        std::slice::from_raw_parts_mut(self.0.add(offset), len)
    }
}
