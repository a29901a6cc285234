//! Panels of a frozen weight as f32.
#![allow(unsafe_op_in_unsafe_fn)]

use super::matrix::{DenseData, MAX_SEGMENT, Matrix, Packed, Scales, Segment, Storage};
use crate::kernel::PANEL;
use crate::simd::{Simd, SimdLevel, dispatch};

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
        rows: std::ops::Range<usize>,
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
                self.decode_blocks(level, p, panel, segment.group, rows, &scales, out);
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

    #[allow(clippy::too_many_arguments)]
    fn decode_blocks(
        &self,
        level: SimdLevel,
        p: &Packed,
        panel: usize,
        group: usize,
        rows: std::ops::Range<usize>,
        scales: &[f32; PANEL],
        out: &mut [f32],
    ) {
        let stride = p.bits as usize * PANEL;
        let first = panel * (self.k_stored / PANEL) + rows.start / PANEL;
        let blocks = rows.len() / PANEL;
        let words = &p.words[first * stride..(first + blocks) * stride];
        let zeros = &p.zeros[(panel * p.n_groups + group) * PANEL..][..PANEL];
        let (words, zeros, scales) = (words.as_ptr(), zeros.as_ptr(), scales.as_ptr());
        let out = out.as_mut_ptr();
        // SAFETY: `words` holds `blocks * bits * 32` words, `out` was checked.
        unsafe {
            match p.bits {
                2 => decode2(level, words, blocks, zeros, scales, out),
                3 => decode3(level, words, blocks, zeros, scales, out),
                4 => decode4(level, words, blocks, zeros, scales, out),
                _ => decode8(level, words, blocks, zeros, scales, out),
            }
        }
    }
}

/// Field `j` (of 32) of every lane; `w` points at the block's first word row.
///
/// # Safety
/// `w` must be valid for the words of the field, `j < 32`.
#[inline(always)]
pub(crate) unsafe fn field<S: Simd, const BITS: u32>(w: *const u32, j: u32) -> S::F {
    let bit = j * BITS;
    let (word, offset) = ((bit / 32) as usize, bit % 32);
    let mut value = S::load_u32(w.add(word * PANEL));
    if offset > 0 {
        value = S::shr(value, offset);
    }
    if offset + BITS > 32 {
        let next = S::load_u32(w.add((word + 1) * PANEL));
        value = S::or(value, S::shl(next, 32 - offset));
    }
    S::low_bits::<BITS>(value)
}

/// Repeats a block with a constant `j` = 0 to 31, so that shifts are
/// immediate operands.
macro_rules! for_each_field {
    ($j:ident => $body:block) => {
        for_each_field!(@ $j $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $j:ident $body:block $($n:literal)*) => { $({ let $j: u32 = $n; $body })* };
}

#[inline(always)]
unsafe fn decode_fields<S: Simd, const BITS: u32>(
    words: *const u32,
    blocks: usize,
    zeros: *const u8,
    scales: *const f32,
    out: *mut f32,
) {
    let mut col = 0;
    while col < PANEL {
        let zero = S::load_u8(zeros.add(col));
        let scale = S::load(scales.add(col));
        for b in 0..blocks {
            let w = words.add(b * BITS as usize * PANEL + col);
            let o = out.add(b * PANEL * PANEL + col);
            for_each_field!(j => {
                let value = S::mul(S::sub(field::<S, BITS>(w, j), zero), scale);
                S::store(o.add(j as usize * PANEL), value);
            });
        }
        col += S::LANES;
    }
}

macro_rules! decoders {
    ($($name:ident $generic:ident $bits:literal;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(w: *const u32, n: usize, z: *const u8, s: *const f32, o: *mut f32) {
            decode_fields::<S, $bits>(w, n, z, s, o)
        }
        dispatch! {
            unsafe fn $name(w: *const u32, n: usize, z: *const u8, s: *const f32, o: *mut f32) = $generic
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

/// One panel of a quantised matrix, for a single row of inputs.
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
    /// `y[..32] += x · panel` for one row `x: (k_stored,)`, straight from the
    /// packed words; the same bits as decoding first. False for a dense matrix.
    ///
    /// # Safety
    /// `y` valid for 32 elements.
    pub(crate) unsafe fn packed_row_product(
        &self,
        level: SimdLevel,
        panel: usize,
        x: &[f32],
        y: *mut f32,
    ) -> bool {
        let Storage::Packed(p) = &self.storage else {
            return false;
        };
        assert!(panel < self.n_panels() && x.len() >= self.k_stored);
        let words = panel * (self.k_stored / PANEL) * p.bits as usize * PANEL;
        let group = panel * p.n_groups * PANEL;
        let of = PanelRef {
            words: p.words[words..].as_ptr(),
            zeros: p.zeros[group..].as_ptr(),
            scales: match &p.scales {
                Scales::F16(s) => ScalesPtr::F16(s[group..].as_ptr()),
                Scales::F32(s) => ScalesPtr::F32(s[group..].as_ptr()),
            },
            segments: &self.segments,
        };
        match p.bits {
            2 => row2(level, of, x.as_ptr(), y),
            3 => row3(level, of, x.as_ptr(), y),
            4 => row4(level, of, x.as_ptr(), y),
            _ => row8(level, of, x.as_ptr(), y),
        }
        true
    }
}

#[inline(always)]
unsafe fn row_product<S: Simd, const BITS: u32>(panel: PanelRef, x: *const f32, y: *mut f32) {
    let mut col = 0;
    while col < PANEL {
        let mut sum = [S::load(y.add(col)), S::load(y.add(col + S::LANES))];
        for segment in panel.segments {
            let group = segment.group * PANEL + col;
            let zero = [0, S::LANES].map(|v| S::load_u8(panel.zeros.add(group + v)));
            let mut acc = [S::splat(0.0); 2];
            for b in 0..segment.len / PANEL {
                let row = segment.start + b * PANEL;
                let w = panel.words.add(row * BITS as usize + col);
                let x = x.add(row);
                for_each_field!(j => {
                    let x = S::splat(*x.add(j as usize));
                    for v in 0..2 {
                        let q = field::<S, BITS>(w.add(v * S::LANES), j);
                        acc[v] = S::fma(x, S::sub(q, zero[v]), acc[v]);
                    }
                });
            }
            for v in 0..2 {
                let at = group + v * S::LANES;
                let scale = match panel.scales {
                    ScalesPtr::F16(s) => S::load_f16(s.add(at)),
                    ScalesPtr::F32(s) => S::load(s.add(at)),
                };
                sum[v] = S::fma(acc[v], scale, sum[v]);
            }
        }
        S::store(y.add(col), sum[0]);
        S::store(y.add(col + S::LANES), sum[1]);
        col += 2 * S::LANES;
    }
}

macro_rules! row_products {
    ($($name:ident $generic:ident $bits:literal;)*) => { $(
        #[inline(always)]
        unsafe fn $generic<S: Simd>(panel: PanelRef, x: *const f32, y: *mut f32) {
            row_product::<S, $bits>(panel, x, y)
        }
        dispatch! { unsafe fn $name(panel: PanelRef, x: *const f32, y: *mut f32) = $generic }
    )* };
}
row_products! {
    row2 row2_generic 2;
    row3 row3_generic 3;
    row4 row4_generic 4;
    row8 row8_generic 8;
}
