//! Decodes panels of a frozen weight to f32 or to pairs of bf16.
#![allow(unsafe_op_in_unsafe_fn)]

use std::ops::Range;

use super::fields::{Fields, Lift, VECTORS, unit_inputs, unit_words};
use super::matrix::{DenseData, MAX_SEGMENT, Matrix, Packed, Scales, Segment, Storage, Zeros};
use super::pairs::Pairs;
use crate::panel::PANEL;
use crate::simd::{Simd, SimdLevel, dispatch};

const ONES: [f32; PANEL] = [1.0; PANEL];

/// Returns the 32 scales of a panel's group; ones for a dense matrix.
pub(crate) fn panel_scales(
    level: SimdLevel,
    matrix: &Matrix,
    panel: usize,
    group: usize,
) -> [f32; PANEL] {
    let mut out = ONES;
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
    /// Writes the rows `rows` of a panel as `(rows.len(), 32)` f32: `q - zero`, times the scale if
    /// `scaled`. `rows` must be inside `segment`. If the matrix is quantised, the start and the end
    /// of `rows` must be multiples of 32.
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
                    // SAFETY: the slices have the lengths that are passed.
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
                let scales =
                    if scaled { panel_scales(level, self, panel, segment.group) } else { ONES };
                let out = out.as_mut_ptr();
                // SAFETY: `out` has room for the rows (checked above).
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

    /// Writes the rows of a segment of a panel as `(len / 2, 32)` pairs of bf16: `q - zero` of
    /// inputs that are [`Self::pair_distance`] apart.
    pub(crate) fn decode_pairs(
        &self,
        level: SimdLevel,
        panel: usize,
        segment: &Segment,
        out: &mut [f32],
    ) {
        assert!(panel < self.n_panels() && out.len() >= segment.len / 2 * PANEL);
        let rows = segment.start..segment.start + segment.len;
        let out = out.as_mut_ptr();
        match &self.storage {
            // SAFETY: `out` has room for the rows (checked above).
            Storage::Packed(p) if p.bits == 2 => unsafe {
                pairs2(level, p, panel, segment, rows, &ONES, out);
            },
            Storage::Packed(p) if p.bits == 4 => unsafe {
                pairs4(level, p, panel, segment, rows, &ONES, out);
            },
            _ => unreachable!("this weight has no pairs"),
        }
    }

    /// Returns the whole weight as `(n, k)` f32, row-major.
    pub fn to_row_major(&self) -> Vec<f32> {
        let level = SimdLevel::detect();
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
unsafe fn decode_units<S: Simd, F: Fields<S>>(
    p: &Packed,
    panel: usize,
    segment: &Segment,
    rows: Range<usize>,
    scales: &[f32; PANEL],
    mut out: *mut f32,
) {
    let fields = F::new(p);
    let zeros = F::zeros(p, panel, segment.group);
    let mut scale = [S::splat(0.0); VECTORS];
    for (v, scale) in scale.iter_mut().enumerate().take(PANEL / S::LANES) {
        *scale = S::load(scales[v * S::LANES..].as_ptr());
    }
    let words = &p.words[panel * p.panel_words..][..p.panel_words];
    let step = unit_words(F::BITS) * PANEL;
    let [start, end] = [rows.start, rows.end].map(|row| row / unit_inputs(F::BITS) * step);
    for w in words[start..end].chunks_exact(step) {
        for i in 0..F::LANES {
            for v in 0..PANEL / S::LANES {
                let q = fields.lane(w[v * S::LANES..].as_ptr(), i, zeros[v]);
                let q = if F::PAIRS { q } else { S::mul(q, scale[v]) };
                S::store(out.add(v * S::LANES), q);
            }
            out = out.add(PANEL);
        }
    }
}

macro_rules! decoders {
    ($($name:ident $generic:ident $same:ty, $each:ty;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(
            p: &Packed, panel: usize, segment: &Segment, rows: Range<usize>,
            scales: &[f32; PANEL], out: *mut f32,
        ) {
            match p.zeros {
                Zeros::Same(_) => decode_units::<S, $same>(p, panel, segment, rows, scales, out),
                Zeros::Each(_) => decode_units::<S, $each>(p, panel, segment, rows, scales, out),
            }
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
    decode2 decode2_generic Lift<S, 2, true>, Lift<S, 2, false>;
    decode3 decode3_generic Lift<S, 3, true>, Lift<S, 3, false>;
    decode4 decode4_generic Lift<S, 4, true>, Lift<S, 4, false>;
    decode8 decode8_generic Lift<S, 8, true>, Lift<S, 8, false>;
    pairs2 pairs2_generic Pairs<2, true>, Pairs<2, false>;
    pairs4 pairs4_generic Pairs<4, true>, Pairs<4, false>;
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
