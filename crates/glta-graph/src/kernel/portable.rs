//! Portable vectors, for processors without AVX2 and as the reference in tests.

use super::loops::{self, AdamRows, AdamStep, Segment};
use super::vector::Vector;
use crate::lines::{Line, WIDTH};

#[derive(Clone, Copy)]
struct Plain([f32; WIDTH]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|k| f(self.0[k], other.0[k])))
    }
}

impl Vector for Plain {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; WIDTH])
    }
    #[inline(always)]
    unsafe fn load(line: *const Line) -> Self {
        unsafe { Self((*line).0) }
    }
    #[inline(always)]
    unsafe fn store(self, line: *mut Line) {
        unsafe { (*line).0 = self.0 }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
}

pub(super) unsafe fn gather(s: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
    unsafe { loops::gather::<Plain>(s, indices, src, dst) }
}

pub(super) unsafe fn scatter(s: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
    unsafe { loops::scatter::<Plain>(s, indices, src, dst) }
}

pub(super) unsafe fn scale(dst: &mut [Line], factors: &[f32], add: Option<&[Line]>) {
    unsafe { loops::scale::<Plain>(dst, factors, add) }
}

pub(super) unsafe fn adam(step: AdamStep, rows: AdamRows<'_>) {
    unsafe { loops::adam::<Plain>(step, rows) }
}
