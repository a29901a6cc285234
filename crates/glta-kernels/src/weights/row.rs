//! Multiplies one row of inputs by a panel directly from the stored weights. The generation of a
//! single text consists mainly of these products, whose speed is limited by the memory bandwidth.
//!
//! The operations and their order are the same as if the weights were decoded first and multiplied
//! afterwards, so the result of a row is bit-identical alone and in a batch.
#![allow(unsafe_op_in_unsafe_fn)]

use super::fields::{Fields, Lift, VECTORS, unit_inputs, unit_words};
use super::matrix::{DenseData, Matrix, Packed, Scales, Segment, Storage, Zeros};
use super::pairs::Pairs;
use crate::panel::{Element, PANEL};
use crate::simd::{Simd, SimdLevel, dispatch, dispatch_bf16};

/// Prefetch distance in bytes. At the end of a panel, the prefetch reaches into the next one.
const AHEAD: usize = 2048;

impl Matrix {
    /// Adds `x · panel` to `y[..32]`, for one row `x` of `k_stored` inputs.
    ///
    /// # Safety
    /// `y` must be valid for 32 elements.
    pub(crate) unsafe fn row_product(
        &self,
        level: SimdLevel,
        panel: usize,
        x: &[f32],
        element: Element,
        y: *mut f32,
    ) {
        assert!(panel < self.n_panels() && x.len() * element.inputs() >= self.k_stored);
        let x = x.as_ptr();
        match &self.storage {
            Storage::Packed(p) => {
                let segments = self.segments.as_slice();
                match (p.bits, element) {
                    (2, Element::Single) => row2(level, p, panel, segments, x, y),
                    (3, Element::Single) => row3(level, p, panel, segments, x, y),
                    (4, Element::Single) => row4(level, p, panel, segments, x, y),
                    (_, Element::Single) => row8(level, p, panel, segments, x, y),
                    (2, Element::Pair { .. }) => pairs2(level, p, panel, segments, x, y),
                    (_, Element::Pair { .. }) => pairs4(level, p, panel, segments, x, y),
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
}

#[inline(always)]
unsafe fn segments_row<S: Simd, F: Fields<S>>(
    p: &Packed,
    panel: usize,
    segments: &[Segment],
    x: *const f32,
    y: *mut f32,
) {
    let words = p.words.as_ptr().add(panel * p.panel_words);
    let fields = F::new(p);
    for segment in segments {
        let zeros = F::zeros(p, panel, segment.group);
        // Use one chain per vector of the panel. Two segments or panels at a time would hide more
        // latency, but read memory more slowly.
        let mut acc = [S::splat(0.0); VECTORS];
        let first = segment.start / unit_inputs(F::BITS);
        for unit in first..first + segment.len / unit_inputs(F::BITS) {
            let w = words.add(unit * unit_words(F::BITS) * PANEL);
            for line in 0..2 * unit_words(F::BITS) {
                S::prefetch(w.cast::<u8>().wrapping_add(AHEAD + 64 * line));
            }
            let x = x.add(unit * F::LANES);
            for i in 0..F::LANES {
                let x = S::splat(*x.add(i));
                for v in 0..PANEL / S::LANES {
                    let q = fields.lane(w.add(v * S::LANES), i, zeros[v]);
                    acc[v] =
                        if F::PAIRS { S::dot_bf16(x, q, acc[v]) } else { S::fma(x, q, acc[v]) };
                }
            }
        }
        let group = (panel * p.n_groups + segment.group) * PANEL;
        for (v, &acc) in acc.iter().enumerate().take(PANEL / S::LANES) {
            let at = group + v * S::LANES;
            let scale = match &p.scales {
                Scales::F16(s) => S::load_f16(s.as_ptr().add(at)),
                Scales::F32(s) => S::load(s.as_ptr().add(at)),
            };
            let y = y.add(v * S::LANES);
            S::store(y, S::fma(acc, scale, S::load(y)));
        }
    }
}

macro_rules! packed_rows {
    ($($name:ident $generic:ident $dispatch:ident $same:ty, $each:ty;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(
            p: &Packed, panel: usize, segments: &[Segment], x: *const f32, y: *mut f32,
        ) {
            match p.zeros {
                Zeros::Same(_) => segments_row::<S, $same>(p, panel, segments, x, y),
                Zeros::Each(_) => segments_row::<S, $each>(p, panel, segments, x, y),
            }
        }
        $dispatch! {
            unsafe fn $name(
                p: &Packed, panel: usize, segments: &[Segment], x: *const f32, y: *mut f32,
            ) = $generic
        }
    )* };
}
packed_rows! {
    row2 row2_generic dispatch Lift<S, 2, true>, Lift<S, 2, false>;
    row3 row3_generic dispatch Lift<S, 3, true>, Lift<S, 3, false>;
    row4 row4_generic dispatch Lift<S, 4, true>, Lift<S, 4, false>;
    row8 row8_generic dispatch Lift<S, 8, true>, Lift<S, 8, false>;
    pairs2 pairs2_generic dispatch_bf16 Pairs<2, true>, Pairs<2, false>;
    pairs4 pairs4_generic dispatch_bf16 Pairs<4, true>, Pairs<4, false>;
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
