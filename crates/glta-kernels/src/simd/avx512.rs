use std::arch::x86_64::*;

use super::vector::Simd;

/// AVX-512: vectors of 16 lanes. `BF16` states whether the processor supports bf16 products.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool = false>;

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = 16;
    const ROWS: usize = 12;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        _mm512_storeu_ps(p, x)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())))
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
    }
    #[inline(always)]
    unsafe fn exp2_int(x: __m512) -> __m512 {
        let biased = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(p.cast())
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        _mm512_reduce_add_ps(x)
    }
    #[inline(always)]
    unsafe fn max_lane(x: __m512) -> f32 {
        _mm512_reduce_max_ps(x)
    }
    #[inline(always)]
    unsafe fn bits(x: __m512) -> __m512i {
        _mm512_castps_si512(x)
    }
    #[inline(always)]
    unsafe fn masked_add(a: __m512i, mask: u32, b: __m512i) -> __m512i {
        _mm512_add_epi32(_mm512_and_si512(a, _mm512_set1_epi32(mask as i32)), b)
    }
    #[inline(always)]
    unsafe fn dot_bf16(a: __m512, b: __m512, c: __m512) -> __m512 {
        if BF16 {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            // SAFETY: both types have 64 bytes, and every bit pattern is valid.
            let [a, b] = [a, b].map(|x| std::mem::transmute::<__m512i, __m512bh>(x));
            return _mm512_dpbf16_ps(c, a, b);
        }
        super::vector::emulated_dot_bf16::<Self>(a, b, c)
    }
    #[inline(always)]
    unsafe fn look_up(table: *const u16, index: __m512i) -> __m512 {
        let table = _mm512_loadu_si512(table.cast());
        _mm512_castsi512_ps(_mm512_permutexvar_epi16(index, table))
    }
    #[inline(always)]
    unsafe fn load_u32(p: *const u32) -> __m512i {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }
    #[inline(always)]
    unsafe fn shr(a: __m512i, n: u32) -> __m512i {
        _mm512_srlv_epi32(a, _mm512_set1_epi32(n as i32))
    }
    #[inline(always)]
    unsafe fn shl(a: __m512i, n: u32) -> __m512i {
        _mm512_sllv_epi32(a, _mm512_set1_epi32(n as i32))
    }
    #[inline(always)]
    unsafe fn assemble(a: __m512i, mask: u32, rest: u32) -> __m512 {
        let (mask, rest) = (_mm512_set1_epi32(mask as i32), _mm512_set1_epi32(rest as i32));
        // `0xea` is the truth table of `a & b | c`.
        _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xea>(a, mask, rest))
    }
    #[inline(always)]
    unsafe fn transpose16(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // Transpose pairs of rows, then 2 x 2 blocks inside 128-bit lanes, then lanes.
        let mut r = [_mm512_setzero_ps(); 16];
        for (i, row) in r.iter_mut().enumerate() {
            *row = _mm512_loadu_ps(src.add(i * src_stride));
        }
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            let (a, b, c, d) = (t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]);
            r[4 * i] = _mm512_shuffle_ps::<0x44>(a, c);
            r[4 * i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
            r[4 * i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
            r[4 * i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
        }
        for i in 0..4 {
            let (a, b, c, d) = (r[i], r[4 + i], r[8 + i], r[12 + i]);
            t[i] = _mm512_shuffle_f32x4::<0x88>(a, b);
            t[4 + i] = _mm512_shuffle_f32x4::<0xdd>(a, b);
            t[8 + i] = _mm512_shuffle_f32x4::<0x88>(c, d);
            t[12 + i] = _mm512_shuffle_f32x4::<0xdd>(c, d);
        }
        for i in 0..4 {
            _mm512_storeu_ps(dst.add(i * dst_stride), _mm512_shuffle_f32x4::<0x88>(t[i], t[8 + i]));
            _mm512_storeu_ps(
                dst.add((4 + i) * dst_stride),
                _mm512_shuffle_f32x4::<0x88>(t[4 + i], t[12 + i]),
            );
            _mm512_storeu_ps(
                dst.add((8 + i) * dst_stride),
                _mm512_shuffle_f32x4::<0xdd>(t[i], t[8 + i]),
            );
            _mm512_storeu_ps(
                dst.add((12 + i) * dst_stride),
                _mm512_shuffle_f32x4::<0xdd>(t[4 + i], t[12 + i]),
            );
        }
    }
}
