use half::{bf16, f16};

use super::vector::Simd;

/// Plain Rust in blocks of four lanes, which compilers vectorise for the target.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const L: usize = 4;
type F = [f32; L];

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    const LANES: usize = L;
    const ROWS: usize = 4;
    type F = F;
    type I = [u32; L];

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; L]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        p.cast::<F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        p.cast::<F>().write_unaligned(x)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        std::array::from_fn(|i| f16::from_bits(p.add(i).read()).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> F {
        std::array::from_fn(|i| bf16::from_bits(p.add(i).read()).to_f32())
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> F {
        std::array::from_fn(|i| f32::from(p.add(i).read()))
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        // The x86 instruction returns the second operand for an unordered comparison, too.
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // `f32::mul_add` is a slow library call on targets without FMA.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(x: F) -> F {
        x.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2_int(x: F) -> F {
        x.map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn sum(x: F) -> f32 {
        (x[0] + x[2]) + (x[1] + x[3])
    }
    #[inline(always)]
    unsafe fn max_lane(x: F) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn bits(x: F) -> [u32; L] {
        x.map(f32::to_bits)
    }
    #[inline(always)]
    unsafe fn masked_add(a: [u32; L], mask: u32, b: [u32; L]) -> [u32; L] {
        std::array::from_fn(|i| (a[i] & mask) + b[i])
    }
    #[inline(always)]
    unsafe fn load_u32(p: *const u32) -> [u32; L] {
        p.cast::<[u32; L]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn or(a: [u32; L], b: [u32; L]) -> [u32; L] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shr(a: [u32; L], n: u32) -> [u32; L] {
        a.map(|x| x >> n)
    }
    #[inline(always)]
    unsafe fn shl(a: [u32; L], n: u32) -> [u32; L] {
        a.map(|x| x.checked_shl(n).unwrap_or(0))
    }
    #[inline(always)]
    unsafe fn assemble(a: [u32; L], mask: u32, rest: u32) -> F {
        a.map(|x| f32::from_bits(x & mask | rest))
    }
    #[inline(always)]
    unsafe fn transpose16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for c in 0..16 {
            for r in 0..16 {
                dst.add(c * dst_stride + r).write(src.add(r * src_stride + c).read());
            }
        }
    }
}
