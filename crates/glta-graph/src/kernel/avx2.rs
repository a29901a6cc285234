//! AVX2 vectors: two registers hold one `Line`.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_div_ps, _mm256_load_ps, _mm256_mul_ps, _mm256_set1_ps,
    _mm256_sqrt_ps, _mm256_store_ps,
};

use super::loops::{self, AdamRows, AdamStep, Segment};
use super::vector::Vector;
use crate::lines::Line;

#[derive(Clone, Copy)]
struct Pair(__m256, __m256);

impl Vector for Pair {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn load(line: *const Line) -> Self {
        let low = line.cast::<f32>();
        unsafe { Self(_mm256_load_ps(low), _mm256_load_ps(low.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, line: *mut Line) {
        let low = line.cast::<f32>();
        unsafe {
            _mm256_store_ps(low, self.0);
            _mm256_store_ps(low.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        unsafe { Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
    }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn gather(s: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
    unsafe { loops::gather::<Pair>(s, indices, src, dst) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn scatter(s: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
    unsafe { loops::scatter::<Pair>(s, indices, src, dst) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn scale(dst: &mut [Line], factors: &[f32], add: Option<&[Line]>) {
    unsafe { loops::scale::<Pair>(dst, factors, add) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn adam(step: AdamStep, rows: AdamRows<'_>) {
    unsafe { loops::adam::<Pair>(step, rows) }
}
