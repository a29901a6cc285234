//! One row of inputs times a panel, straight from the stored weights: what
//! decoding a single text is made of, bound by memory.
//!
//! The operations and their order are those of decoding first and multiplying
//! then, so a row has the same bits alone and in a batch.
#![allow(unsafe_op_in_unsafe_fn)]

use super::decode::{VECTORS, field};
use super::matrix::{DenseData, Matrix, Packed, Scales, Segment, Storage};
use crate::kernel::PANEL;
use crate::simd::{Simd, SimdLevel, dispatch};

/// Bytes by which weights are asked for ahead of their use. The next panel
/// follows, so running over the end of one is right.
const AHEAD: usize = 2048;

/// One panel of a quantised matrix.
#[derive(Clone, Copy)]
struct PanelRef<'a> {
    words: *const u32,
    zeros: *const u8,
    scales: ScalesPtr,
    segments: &'a [Segment],
}

#[derive(Clone, Copy)]
enum ScalesPtr {
    F16(*const u16),
    F32(*const f32),
}

impl Matrix {
    /// `y[..32] += x · panel` for one row `x: (k_stored,)`.
    ///
    /// # Safety
    /// `y` valid for 32 elements.
    pub(crate) unsafe fn row_product(
        &self,
        level: SimdLevel,
        panel: usize,
        x: &[f32],
        y: *mut f32,
    ) {
        assert!(panel < self.n_panels() && x.len() >= self.k_stored);
        let x = x.as_ptr();
        match &self.storage {
            Storage::Packed(p) => {
                let of = self.panel_ref(p, panel);
                match p.bits {
                    2 => row2(level, of, x, y),
                    3 => row3(level, of, x, y),
                    4 => row4(level, of, x, y),
                    _ => row8(level, of, x, y),
                }
            }
            Storage::Dense(data) => {
                let at = panel * self.k * PANEL;
                let segments = self.segments.as_slice();
                match data {
                    DenseData::F32(w) => row_f32(level, w[at..].as_ptr(), segments, x, y),
                    DenseData::F16(w) => row_f16(level, w[at..].as_ptr(), segments, x, y),
                    DenseData::Bf16(w) => row_bf16(level, w[at..].as_ptr(), segments, x, y),
                }
            }
        }
    }

    fn panel_ref<'a>(&'a self, p: &'a Packed, panel: usize) -> PanelRef<'a> {
        let words = panel * (self.k_stored / PANEL) * p.bits as usize * PANEL;
        let group = panel * p.n_groups * PANEL;
        PanelRef {
            words: p.words[words..].as_ptr(),
            zeros: p.zeros[group..].as_ptr(),
            scales: match &p.scales {
                Scales::F16(s) => ScalesPtr::F16(s[group..].as_ptr()),
                Scales::F32(s) => ScalesPtr::F32(s[group..].as_ptr()),
            },
            segments: &self.segments,
        }
    }
}

#[inline(always)]
unsafe fn packed_row<S: Simd, const BITS: u32>(panel: PanelRef, x: *const f32, y: *mut f32) {
    for segment in panel.segments {
        let group = segment.group * PANEL;
        let mut zero = [S::splat(0.0); VECTORS];
        for (v, zero) in zero.iter_mut().enumerate().take(PANEL / S::LANES) {
            *zero = S::load_u8(panel.zeros.add(group + v * S::LANES));
        }
        // A chain for every vector of the panel hides the latency of the
        // multiply-adds.
        let mut acc = [S::splat(0.0); VECTORS];
        for b in 0..segment.len / PANEL {
            let row = segment.start + b * PANEL;
            let w = panel.words.add(row * BITS as usize);
            for line in 0..2 * BITS as usize {
                S::prefetch(w.cast::<u8>().wrapping_add(AHEAD + 64 * line));
            }
            // A loop, not 32 copies: unrolled, it only spills registers.
            for j in 0..PANEL {
                let x = S::splat(*x.add(row + j));
                for v in 0..PANEL / S::LANES {
                    let q = field::<S, BITS>(w.add(v * S::LANES), j as u32);
                    acc[v] = S::fma(x, S::sub(q, zero[v]), acc[v]);
                }
            }
        }
        for (v, &acc) in acc.iter().enumerate().take(PANEL / S::LANES) {
            let at = group + v * S::LANES;
            let scale = match panel.scales {
                ScalesPtr::F16(s) => S::load_f16(s.add(at)),
                ScalesPtr::F32(s) => S::load(s.add(at)),
            };
            let y = y.add(v * S::LANES);
            S::store(y, S::fma(acc, scale, S::load(y)));
        }
    }
}

macro_rules! packed_rows {
    ($($name:ident $generic:ident $bits:literal;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(panel: PanelRef, x: *const f32, y: *mut f32) {
            packed_row::<S, $bits>(panel, x, y)
        }
        dispatch! { unsafe fn $name(panel: PanelRef, x: *const f32, y: *mut f32) = $generic }
    )* };
}
packed_rows! {
    row2 row2_generic 2;
    row3 row3_generic 3;
    row4 row4_generic 4;
    row8 row8_generic 8;
}

macro_rules! dense_rows {
    ($($name:ident $generic:ident $dtype:ty, $load:ident;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(w: *const $dtype, segments: &[Segment], x: *const f32, y: *mut f32) {
            for segment in segments {
                let mut acc = [S::splat(0.0); VECTORS];
                for row in segment.start..segment.start + segment.len {
                    let x = S::splat(*x.add(row));
                    let w = w.add(row * PANEL);
                    for line in 0..size_of::<$dtype>() / 2 {
                        S::prefetch(w.cast::<u8>().wrapping_add(AHEAD + 64 * line));
                    }
                    for v in 0..PANEL / S::LANES {
                        acc[v] = S::fma(x, S::$load(w.add(v * S::LANES)), acc[v]);
                    }
                }
                for v in 0..PANEL / S::LANES {
                    let y = y.add(v * S::LANES);
                    S::store(y, S::add(acc[v], S::load(y)));
                }
            }
        }
        dispatch! { unsafe fn $name(w: *const $dtype, segments: &[Segment], x: *const f32, y: *mut f32) = $generic }
    )* };
}
dense_rows! {
    row_f32 row_f32_generic f32, load;
    row_f16 row_f16_generic u16, load_f16;
    row_bf16 row_bf16_generic u16, load_bf16;
}
