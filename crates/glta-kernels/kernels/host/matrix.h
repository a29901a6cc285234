// The tensor cores for kernels compiled as plain C++: the device operations of matrix.cuh, with the
// layouts of the PTX ISA. Each operation runs once per warp, when all of its lanes have arrived.
#pragma once

namespace emulate {
inline float half_of(std::uint32_t word, unsigned which, __half) {
    return __half2float({std::uint16_t(word >> 16 * which)});
}
inline float half_of(std::uint32_t word, unsigned which, __nv_bfloat16) {
    return __bfloat162float({std::uint16_t(word >> 16 * which)});
}

template <typename T> void multiply_lanes(Lanes &lanes) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const std::uint32_t *words = lanes.words[lane];
        const unsigned group = lane / 4;
        for (unsigned h = 0; h < 2; h++) {
            const unsigned at = lane % 4 * 2 + h;
            for (unsigned i = 0; i < 4; i++) {
                a[group + i % 2 * 8][at + i / 2 * 8] = half_of(words[i], h, T());
            }
            for (unsigned i = 0; i < 2; i++) {
                b[at + i * 8][group] = half_of(words[4 + i], h, T());
            }
        }
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            std::uint32_t &word = lanes.words[lane][6 + i];
            float sum = __uint_as_float(word);
            for (unsigned k = 0; k < 16; k++) {
                sum += a[row][k] * b[k][column];
            }
            word = __float_as_uint(sum);
        }
    }
}

template <bool TRANSPOSED> void load_lanes(Lanes &lanes) {
    std::uint16_t rows[32][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const void *from;
        std::memcpy(&from, lanes.words[lane], sizeof from);
        std::memcpy(rows[lane], from, sizeof rows[lane]);
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        for (unsigned i = 0; i < 4; i++) {
            std::uint16_t got[2];
            for (unsigned h = 0; h < 2; h++) {
                const unsigned at = lane % 4 * 2 + h;
                got[h] = TRANSPOSED ? rows[8 * i + at][lane / 4] : rows[8 * i + lane / 4][at];
            }
            std::memcpy(&lanes.words[lane][i], got, sizeof got);
        }
    }
}
} // namespace emulate

template <bool TRANSPOSED> void load_matrices(std::uint32_t (&to)[4], const void *row) {
    emulate::check_shared(row);
    std::memcpy(to, &row, sizeof row);
    emulate::together(to, 4, emulate::load_lanes<TRANSPOSED>);
}

template <typename T>
void multiply(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
              T) {
    std::uint32_t words[10] = {a[0], a[1], a[2], a[3], b0, b1};
    std::memcpy(words + 6, sums, sizeof sums);
    emulate::together(words, 10, emulate::multiply_lanes<T>);
    std::memcpy(sums, words + 6, sizeof sums);
}

inline void copy_later(void *to, const void *from, bool exists) {
    emulate::check_shared(to);
    emulate::copy_later(to, from, exists);
}
inline void await_copies() { emulate::await_copies(); }
inline void end_copies() { emulate::end_copies(); }
template <int N> void await_copies_but() { emulate::await_copies_but(N); }

inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b, __half) {
    using emulate::half_of;
    const __half low = __float2half_rn(half_of(a, 0, __half()) + half_of(b, 0, __half()));
    const __half high = __float2half_rn(half_of(a, 1, __half()) + half_of(b, 1, __half()));
    return low.bits | std::uint32_t(high.bits) << 16;
}
inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b, __nv_bfloat16 type) {
    using emulate::half_of;
    const __nv_bfloat16 low = __float2bfloat16_rn(half_of(a, 0, type) + half_of(b, 0, type));
    const __nv_bfloat16 high = __float2bfloat16_rn(half_of(a, 1, type) + half_of(b, 1, type));
    return low.bits | std::uint32_t(high.bits) << 16;
}

inline float power_of_two(float x) { return std::exp2(x); }
