use crate::lines::Line;

/// A vector of sixteen `f32` in registers.
///
/// # Safety
/// The processor must support the instruction set of the implementation, and pointers must be
/// valid.
pub(super) trait Vector: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(line: *const Line) -> Self;
    unsafe fn store(self, line: *mut Line);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
}
