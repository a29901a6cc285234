use crate::lines::Line;

/// Sixteen `f32` in registers.
///
/// # Safety
/// Callers make sure that the processor has the instruction set of the
/// implementation and that pointers are valid.
pub(super) trait Vector: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(line: *const Line) -> Self;
    unsafe fn store(self, line: *mut Line);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
}
