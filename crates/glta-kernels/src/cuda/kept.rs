use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::Tensor;

use super::stream::Stream;
use crate::error::Result;

/// Decides whether the dequantised weights of a device stay in its memory between passes.
///
/// They stay if all of them fit into half of the memory that is free at the first pass with many
/// rows; the other half is for activations and caches.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptWeights {
    /// The setting of the user; `None` decides by the free memory.
    asked: Option<bool>,
    sizes: Arc<Mutex<Sizes>>,
}

/// Bytes of dequantised weights.
#[derive(Debug, Default)]
struct Sizes {
    /// Bytes for all packed weights.
    all: usize,
    /// Bytes of the weights that are kept.
    kept: usize,
    /// The last decision, and `all` at that time.
    decision: Option<(bool, usize)>,
}

impl KeptWeights {
    pub(super) fn new(asked: Option<bool>) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Adds a packed weight to those of the device.
    pub(super) fn add(&self, bytes: usize) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).all += bytes;
    }

    /// Stores a dequantised weight in `place` if it stays in memory.
    pub(super) fn keep(
        &self,
        stream: &Stream,
        place: &OnceLock<Tensor>,
        weight: &Tensor,
    ) -> Result<()> {
        let bytes = weight.elem_count() * weight.dtype().size_in_bytes();
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = match sizes.decision {
            Some((keep, all)) if all == sizes.all => keep,
            _ => {
                // `weight` is allocated already.
                let missing = sizes.all.saturating_sub(sizes.kept + bytes);
                let free = stream.free_memory()?;
                let keep = self.asked.unwrap_or(free.is_some_and(|free| missing <= free / 2));
                tracing::info!(
                    keep,
                    bytes = sizes.all,
                    free,
                    "dequantised weights are {} between passes",
                    if keep { "kept" } else { "not kept" }
                );
                sizes.decision = Some((keep, sizes.all));
                keep
            }
        };
        if keep && place.set(weight.clone()).is_ok() {
            sizes.kept += bytes;
        }
        Ok(())
    }
}
