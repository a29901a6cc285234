//! Allocates memory for packed weights.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Number of bytes that are mapped at a time: as many as are already allocated, within these
/// bounds. A small model then does not pay for clearing huge pages.
const CHUNK: std::ops::RangeInclusive<usize> = 1 << 20..=64 << 20;
/// Size in bytes from which a mapping requests huge pages.
const HUGE: usize = 8 << 20;
/// Alignment of buffers in bytes: a cache line.
const ALIGN: usize = 64;

#[derive(Debug, Default)]
struct State {
    /// The current mapping, and the number of its bytes in use.
    current: Option<(Arc<MmapMut>, usize)>,
    handed_out: usize,
}

/// An allocator of zeroed buffers, side by side in a few large mappings with huge pages. Each token
/// reads all weights once, and with small pages address translation takes a significant part of
/// that time.
#[derive(Debug, Default)]
pub struct Arena {
    state: Mutex<State>,
}

impl Arena {
    /// Allocates a buffer of `len` zeros.
    pub(crate) fn zeroed<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let refused = |reason: String| {
            Error::Input(format!(
                "no memory for {len} x {} bytes of weights: {reason}",
                size_of::<T>()
            ))
        };
        let bytes = len
            .checked_mul(size_of::<T>())
            .and_then(|b| b.checked_next_multiple_of(ALIGN))
            .ok_or_else(|| refused("too large".into()))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, used) = match state.current.take() {
            Some((chunk, used)) if chunk.len() - used >= bytes => (chunk, used),
            _ => {
                let chunk = MmapMut::map_anon(
                    bytes.max(state.handed_out.clamp(*CHUNK.start(), *CHUNK.end())),
                )
                .map_err(|e| refused(e.to_string()))?;
                // This is a hint: without huge pages the program works, but slower.
                #[cfg(target_os = "linux")]
                if chunk.len() >= HUGE {
                    let _ = chunk.advise(memmap2::Advice::HugePage);
                }
                (Arc::new(chunk), 0)
            }
        };
        // The mapping is never written through the `Arc`, and allocations do not overlap.
        let ptr = chunk.as_ptr().wrapping_add(used).cast_mut().cast::<T>();
        state.current = Some((Arc::clone(&chunk), used + bytes));
        state.handed_out += bytes;
        Ok(Buffer { ptr, len, _chunk: chunk, _owned: PhantomData })
    }
}

/// An owned slice of a mapping.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    ptr: *mut T,
    len: usize,
    /// The mapping, which must live as long as the slice.
    _chunk: Arc<MmapMut>,
    _owned: PhantomData<T>,
}

// SAFETY: the range belongs to this buffer only, as for `Vec<T>`.
unsafe impl<T: Send> Send for Buffer<T> {}
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the range is inside the mapping and aligned, and any bytes are a valid `T`
        // (`zeroed` requires `Pod`).
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the range is inside the mapping, aligned and valid, and no other buffer has it.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zero_aligned_and_disjoint() {
        let arena = Arena::default();
        let mut buffers: Vec<Buffer<u16>> = [1, 7, 0, 33, 2 << 20, 5, 8 << 20]
            .into_iter()
            .map(|n| arena.zeroed(n).unwrap())
            .collect();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.iter().all(|&v| v == 0));
            assert!((buffer.as_ptr() as usize).is_multiple_of(ALIGN));
            buffer.fill(i as u16 + 1);
        }
        drop(arena);
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&v| v == i as u16 + 1));
        }
    }

    #[test]
    fn an_impossible_allocation_is_an_error() {
        assert!(Arena::default().zeroed::<u64>(usize::MAX / 2).is_err());
        assert!(Arena::default().zeroed::<u8>(1 << 60).is_err());
    }
}
