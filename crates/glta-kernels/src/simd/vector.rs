/// Vector operations of one instruction set.
///
/// # Safety
/// The processor must support the instruction set, and pointers must be valid for `LANES` elements
/// (they need not be aligned).
pub(crate) trait Simd: Copy + 'static {
    /// Number of f32 in a vector, a divisor of 16.
    const LANES: usize;
    /// Maximum number of rows of the register tile, each of two vectors.
    const ROWS: usize;
    /// A vector of f32.
    type F: Copy;
    /// A vector of u32.
    type I: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn load_f16(p: *const u16) -> Self::F;
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// Loads bytes, such as zero points, as f32.
    unsafe fn load_u8(p: *const u8) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// Returns the larger value, or `b` if one of them is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// Returns the smaller value, or `b` if one of them is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// Computes `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Rounds to the nearest integer. Requires `|x| < 2^22`.
    unsafe fn round(x: Self::F) -> Self::F;
    /// Computes `2^x` of an integral `x` in `-126..=127`.
    unsafe fn exp2_int(x: Self::F) -> Self::F;
    /// Prefetches the cache line of `p`, which may be any address.
    unsafe fn prefetch(p: *const u8);
    unsafe fn sum(x: Self::F) -> f32;
    unsafe fn max_lane(x: Self::F) -> f32;

    /// Returns the bits of an f32.
    unsafe fn bits(x: Self::F) -> Self::I;
    unsafe fn load_u32(p: *const u32) -> Self::I;
    /// Computes `(a & mask) + b`.
    unsafe fn masked_add(a: Self::I, mask: u32, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts right by `n < 32` bits.
    unsafe fn shr(a: Self::I, n: u32) -> Self::I;
    /// Shifts left by `n <= 32` bits; a shift by 32 returns 0.
    unsafe fn shl(a: Self::I, n: u32) -> Self::I;
    /// Returns the f32 with the bits `a & mask | rest`.
    unsafe fn assemble(a: Self::I, mask: u32, rest: u32) -> Self::F;

    /// Transposes a `16 x 16` block: `dst[c * dst_stride + r] = src[r * src_stride + c]`.
    unsafe fn transpose16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize);

    /// Computes `(c + a₁ b₁) + a₀ b₀` for lanes of two bf16 each, where index 1 is the upper half
    /// of a lane. A product of two bf16 is exact in f32, so fusing does not change the result.
    #[inline(always)]
    unsafe fn dot_bf16(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        emulated_dot_bf16::<Self>(a, b, c)
    }

    /// Replaces both halves of every lane by the entry of `table` (of 32) that their lowest five
    /// bits select.
    #[inline(always)]
    unsafe fn look_up(table: *const u16, index: Self::I) -> Self::F {
        let mut lanes = [0.0f32; 16];
        Self::store(lanes.as_mut_ptr(), Self::assemble(index, !0, 0));
        let entry = |i: u32| u32::from(*table.add(i as usize & 31));
        for lane in &mut lanes[..Self::LANES] {
            let index = lane.to_bits();
            *lane = f32::from_bits(entry(index) | entry(index >> 16) << 16);
        }
        Self::load(lanes.as_ptr())
    }

    /// Computes `e^x` with a relative error below 2e-7, for `x` clamped to `-87..88`.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // Write x = n ln 2 + r with |r| <= ln 2 / 2. e^r is the Taylor polynomial of degree 7,
        // whose error is below rounding in this range. With this order of operands a NaN stays a
        // NaN.
        let clamped = Self::min(Self::splat(88.0), Self::max(Self::splat(-87.33), x));
        let n = Self::round(Self::mul(clamped, Self::splat(std::f32::consts::LOG2_E)));
        let r = Self::fma(n, Self::splat(-0.693_359_4), clamped);
        let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = Self::fma(p, r, Self::splat(c));
        }
        Self::mul(p, Self::exp2_int(n))
    }
}

/// Computes [`Simd::dot_bf16`] on processors without bf16 products.
#[inline(always)]
pub(super) unsafe fn emulated_dot_bf16<S: Simd>(a: S::F, b: S::F, c: S::F) -> S::F {
    let bits = [S::bits(a), S::bits(b)];
    let [a1, b1] = bits.map(|x| S::assemble(x, 0xffff_0000, 0));
    let [a0, b0] = bits.map(|x| S::assemble(S::shl(x, 16), !0, 0));
    S::fma(a0, b0, S::fma(a1, b1, c))
}
