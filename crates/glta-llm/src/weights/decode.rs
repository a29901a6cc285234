//! Panels of a frozen weight as f32.
#![allow(unsafe_op_in_unsafe_fn)]

use super::fields::{Lift, VECTORS, unit_inputs, unit_words};
use super::matrix::{DenseData, MAX_SEGMENT, Matrix, Packed, Scales, Segment, Storage, Zeros};
use crate::kernel::PANEL;
use crate::simd::{Simd, SimdLevel, dispatch};
use std::ops::Range;

/// The 32 scales of a panel's group; ones for a dense matrix.
pub(crate) fn panel_scales(
    level: SimdLevel,
    matrix: &Matrix,
    panel: usize,
    group: usize,
) -> [f32; PANEL] {
    let mut out = [1.0; PANEL];
    if let Storage::Packed(p) = &matrix.storage {
        let at = (panel * p.n_groups + group) * PANEL;
        match &p.scales {
            Scales::F32(s) => out.copy_from_slice(&s[at..at + PANEL]),
            // SAFETY: both have 32 elements.
            Scales::F16(s) => unsafe {
                widen_f16(level, s[at..at + PANEL].as_ptr(), out.as_mut_ptr(), PANEL);
            },
        }
    }
    out
}

impl Matrix {
    /// Writes rows `rows` (inside `segment`; multiples of 32 when quantised)
    /// of a panel as `(rows.len(), 32)` f32: `q - zero`, times the scale where
    /// `scaled`.
    pub(crate) fn decode_rows(
        &self,
        level: SimdLevel,
        panel: usize,
        segment: &Segment,
        rows: Range<usize>,
        scaled: bool,
        out: &mut [f32],
    ) {
        assert!(panel < self.n_panels() && rows.end <= segment.start + segment.len);
        assert!(rows.start >= segment.start && out.len() >= rows.len() * PANEL);
        match &self.storage {
            Storage::Dense(data) => {
                let range =
                    (panel * self.k + rows.start) * PANEL..(panel * self.k + rows.end) * PANEL;
                match data {
                    DenseData::F32(v) => out[..range.len()].copy_from_slice(&v[range]),
                    // SAFETY: the slices have the lengths passed along.
                    DenseData::F16(v) => unsafe {
                        let v = &v[range];
                        widen_f16(level, v.as_ptr(), out.as_mut_ptr(), v.len());
                    },
                    DenseData::Bf16(v) => unsafe {
                        let v = &v[range];
                        widen_bf16(level, v.as_ptr(), out.as_mut_ptr(), v.len());
                    },
                }
            }
            Storage::Packed(p) => {
                let scales = if scaled {
                    panel_scales(level, self, panel, segment.group)
                } else {
                    [1.0; PANEL]
                };
                let out = out.as_mut_ptr();
                // SAFETY: `out` holds the rows, as checked.
                unsafe {
                    match p.bits {
                        2 => decode2(level, p, panel, segment, rows, &scales, out),
                        3 => decode3(level, p, panel, segment, rows, &scales, out),
                        4 => decode4(level, p, panel, segment, rows, &scales, out),
                        _ => decode8(level, p, panel, segment, rows, &scales, out),
                    }
                }
            }
        }
    }

    /// The whole weight as `(n, k)`, row-major.
    pub(crate) fn to_row_major(&self, level: SimdLevel) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.k];
        let mut rows = vec![0.0; MAX_SEGMENT * PANEL];
        for panel in 0..self.n_panels() {
            for s in &self.segments {
                let range = s.start..s.start + s.len;
                self.decode_rows(level, panel, s, range.clone(), true, &mut rows);
                for (stored, row) in range.zip(rows.chunks_exact(PANEL)) {
                    let input = self.gather.as_ref().map_or(stored, |g| g[stored] as usize);
                    if input < self.k {
                        for (n, v) in (panel * PANEL..self.n).zip(row) {
                            out[n * self.k + input] = *v;
                        }
                    }
                }
            }
        }
        out
    }
}

#[inline(always)]
unsafe fn decode_fields<S: Simd, const BITS: u32>(
    p: &Packed,
    panel: usize,
    segment: &Segment,
    rows: Range<usize>,
    scales: &[f32; PANEL],
    out: *mut f32,
) {
    match p.zeros {
        Zeros::Same(_) => decode_units::<S, BITS, true>(p, panel, segment, rows, scales, out),
        Zeros::Each(_) => decode_units::<S, BITS, false>(p, panel, segment, rows, scales, out),
    }
}

#[inline(always)]
unsafe fn decode_units<S: Simd, const BITS: u32, const SAME: bool>(
    p: &Packed,
    panel: usize,
    segment: &Segment,
    rows: Range<usize>,
    scales: &[f32; PANEL],
    mut out: *mut f32,
) {
    let lift = Lift::<S, BITS>::new(p);
    let zeros = p.zeros_of::<S, SAME>(panel, segment.group);
    let mut scale = [S::splat(0.0); VECTORS];
    for (v, scale) in scale.iter_mut().enumerate().take(PANEL / S::LANES) {
        *scale = S::load(scales[v * S::LANES..].as_ptr());
    }
    let words = &p.words[panel * p.panel_words..][..p.panel_words];
    let step = unit_words(BITS) * PANEL;
    let words = &words[rows.start / unit_inputs(BITS) * step..rows.end / unit_inputs(BITS) * step];
    for w in words.chunks_exact(step) {
        for i in 0..unit_inputs(BITS) {
            for v in 0..PANEL / S::LANES {
                let q = lift.field::<SAME>(w[v * S::LANES..].as_ptr(), i, zeros[v]);
                S::store(out.add(v * S::LANES), S::mul(q, scale[v]));
            }
            out = out.add(PANEL);
        }
    }
}

macro_rules! decoders {
    ($($name:ident $generic:ident $bits:literal;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(
            p: &Packed, panel: usize, segment: &Segment, rows: Range<usize>,
            scales: &[f32; PANEL], out: *mut f32,
        ) {
            decode_fields::<S, $bits>(p, panel, segment, rows, scales, out)
        }
        dispatch! {
            unsafe fn $name(
                p: &Packed, panel: usize, segment: &Segment, rows: Range<usize>,
                scales: &[f32; PANEL], out: *mut f32,
            ) = $generic
        }
    )* };
}
decoders! {
    decode2 decode2_generic 2;
    decode3 decode3_generic 3;
    decode4 decode4_generic 4;
    decode8 decode8_generic 8;
}

#[inline(always)]
unsafe fn widen_f16_generic<S: Simd>(from: *const u16, to: *mut f32, len: usize) {
    let mut i = 0;
    while i < len {
        S::store(to.add(i), S::load_f16(from.add(i)));
        i += S::LANES;
    }
}

#[inline(always)]
unsafe fn widen_bf16_generic<S: Simd>(from: *const u16, to: *mut f32, len: usize) {
    let mut i = 0;
    while i < len {
        S::store(to.add(i), S::load_bf16(from.add(i)));
        i += S::LANES;
    }
}

dispatch! { unsafe fn widen_f16(from: *const u16, to: *mut f32, len: usize) = widen_f16_generic }
dispatch! { unsafe fn widen_bf16(from: *const u16, to: *mut f32, len: usize) = widen_bf16_generic }
