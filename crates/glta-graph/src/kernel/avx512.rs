//! AVX-512 vectors: one register holds one `Line`.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_div_ps, _mm512_load_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_sqrt_ps, _mm512_store_ps,
};

use super::loops::{self, AdamRows, AdamStep, Segment};
use super::vector::Vector;
use crate::lines::Line;

impl Vector for __m512 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(line: *const Line) -> Self {
        unsafe { _mm512_load_ps(line.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, line: *mut Line) {
        unsafe { _mm512_store_ps(line.cast(), self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { _mm512_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        unsafe { _mm512_sqrt_ps(self) }
    }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn gather(s: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
    unsafe { loops::gather::<__m512>(s, indices, src, dst) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn scatter(s: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
    unsafe { loops::scatter::<__m512>(s, indices, src, dst) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn scale(dst: &mut [Line], factors: &[f32], add: Option<&[Line]>) {
    unsafe { loops::scale::<__m512>(dst, factors, add) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn adam(step: AdamStep, rows: AdamRows<'_>) {
    unsafe { loops::adam::<__m512>(step, rows) }
}
