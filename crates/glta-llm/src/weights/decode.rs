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
/// `w` must be valid for the words of a block, `j < 32`.
#[inline(always)]
pub(super) unsafe fn field<S: Simd, const BITS: u32>(w: *const u32, j: u32) -> S::F {
    let bit = j * BITS;
    let (word, offset) = ((bit / 32) as usize, bit % 32);
    let value = S::shr(S::load_u32(w.add(word * PANEL)), offset);
    if BITS != 3 {
        return S::low_bits::<BITS>(value);
    }
    // Fields of three bits may straddle two words. Of any other field nothing
    // of the next word reaches the lowest three bits.
    let next = S::load_u32(w.add((word + 1).min(2) * PANEL));
    S::low_bits::<BITS>(S::or(value, S::shl(next, 32 - offset)))
}

/// As many vectors as a panel can be wide; a loop over `PANEL / S::LANES` of
/// them keeps to those that exist.
pub(super) const VECTORS: usize = 8;

#[inline(always)]
unsafe fn decode_fields<S: Simd, const BITS: u32>(
    words: *const u32,
    blocks: usize,
    zeros: *const u8,
    scales: *const f32,
    out: *mut f32,
) {
    let mut zero = [S::splat(0.0); VECTORS];
    let mut scale = [S::splat(0.0); VECTORS];
    for v in 0..PANEL / S::LANES {
        zero[v] = S::load_u8(zeros.add(v * S::LANES));
        scale[v] = S::load(scales.add(v * S::LANES));
    }
    for b in 0..blocks {
        let w = words.add(b * BITS as usize * PANEL);
        for j in 0..PANEL {
            let o = out.add((b * PANEL + j) * PANEL);
            for v in 0..PANEL / S::LANES {
                let q = field::<S, BITS>(w.add(v * S::LANES), j as u32);
                S::store(o.add(v * S::LANES), S::mul(S::sub(q, zero[v]), scale[v]));
            }
        }
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
