// Packed weights W: (n, k), outputs by inputs, in the order of the fragments of the tensor cores.
//
// The layout of the words is [panel][k / 32] of squares of 32 inputs and 32 outputs. In a square
// lane 4 g + t of a warp has the inputs 8 t .. 8 t + 8 of the outputs 4 g .. 4 g + 4, in BITS
// words: 16 pairs of fields. Pair 4 c + i has the inputs 8 t + 2 i and 8 t + 2 i + 1 of output 4 g
// + c. The fields of a pair are at the same place in the two halves of a word, so one operation
// reads both. Pairs follow each other in the words. A half has five fields of three bits; the bits
// of the last pair are the upper bits of the halves. `Fields::load` has the order of the lanes'
// words in a square.
//
// The layout of scales and zero points is [panel][group][32]; a group has `group_blocks` times 32
// inputs.
#pragma once
#include "common.cuh"

constexpr u32 PANEL = 32; // outputs of a panel
constexpr u32 BLOCK = 32; // inputs of a square
constexpr u32 COLUMNS = 4; // outputs of a lane
constexpr u32 FIELDS = 8; // inputs of a lane

// First of the lane's outputs in a panel, and of its inputs in a square.
INLINE u32 lane_column() { return threadIdx.x % WARP / 4 * COLUMNS; }
INLINE u32 lane_input() { return threadIdx.x % 4 * FIELDS; }

// The fields of a lane.
template <int BITS> struct Fields {
    static constexpr u32 SQUARE = BITS * WARP; // words
    static constexpr u32 PER_HALF = 16 / BITS;
    static constexpr u32 MASK = (1u << BITS) - 1u;

    u32 words[BITS];

    // Reads the lane's words of a square.
    template <typename Load> INLINE void load(const u32 *square, Load load) {
        const u32 lane = threadIdx.x % WARP;
        if constexpr (BITS == 2) {
            const uint2 v = load(reinterpret_cast<const uint2 *>(square) + lane);
            words[0] = v.x, words[1] = v.y;
        } else if constexpr (BITS == 3) {
            for (u32 w = 0; w < 3; w++) {
                words[w] = load(square + w * WARP + lane);
            }
        } else {
            for (u32 w = 0; w < BITS; w += 4) {
                const uint4 v = load(reinterpret_cast<const uint4 *>(square + w * WARP) + lane);
                words[w] = v.x, words[w + 1] = v.y, words[w + 2] = v.z, words[w + 3] = v.w;
            }
        }
    }

    // Whether the bits of a pair are the upper bits of the halves.
    INLINE static constexpr bool scattered(u32 pair) { return pair >= BITS * PER_HALF; }
    // Both fields of such a pair, in the lowest bits of the halves.
    INLINE u32 gathered() const {
        u32 fields = 0;
        for (u32 w = 0; w < BITS; w++) {
            fields |= words[w] >> (15 - w) & 0x10001u << w;
        }
        return fields;
    }

    // The fields of a pair in the lowest bits of the halves, and the bits of `set`.
    INLINE u32 pair(u32 pair, u32 set) const {
        if (scattered(pair)) {
            return gathered() | set;
        }
        return insert(words[pair / PER_HALF] >> pair % PER_HALF * BITS, MASK * 0x10001u, set);
    }

    // Field of input `j` of column `c` as a float, and the value that is then zero. The field is
    // the mantissa of a float whose lowest bit has the value one, so the difference is exact. Of
    // two neighbouring places the upper one needs no shift of its own; `base` has the two values.
    INLINE float value(u32 c, u32 j, const float (&base)[2]) const {
        const u32 pair = COLUMNS * c + j / 2, place = pair % PER_HALF, half = j % 2 * 16;
        if (scattered(pair)) {
            return __uint_as_float(insert(gathered() >> half, MASK, exponent(0))) - base[0];
        }
        const u32 upper = place % 2, word = words[pair / PER_HALF];
        const u32 at = insert(word >> (half + (place - upper) * BITS), MASK << (upper * BITS),
                              exponent(upper));
        return __uint_as_float(at) - base[upper];
    }
    // The exponent for a field whose lowest bit is bit 0, or bit BITS if `upper`.
    INLINE static constexpr u32 exponent(u32 upper) { return (127 + 23 - upper * BITS) << 23; }
    INLINE static void bases(float zero, float (&base)[2]) {
        for (u32 upper = 0; upper < 2; upper++) {
            base[upper] = __uint_as_float(exponent(upper)) + zero;
        }
    }
};

// Four scales from `at` on, and four zero points.
INLINE void load_scales(const void *scales, u32 f32_scales, u64 at, float (&to)[COLUMNS]) {
    if (f32_scales) {
        load4(static_cast<const float *>(scales) + at, to);
    } else {
        load4(static_cast<const f16 *>(scales) + at, to);
    }
}
INLINE void load_zeros(const u8 *from, float (&to)[COLUMNS]) {
    const u32 four = *reinterpret_cast<const u32 *>(from);
    for (u32 c = 0; c < COLUMNS; c++) {
        to[c] = float(four >> 8 * c & 0xffu);
    }
}

// Divides by a number with a multiplication; both numbers are below 2^15.
struct Divisor {
    u32 factor;
    INLINE explicit Divisor(u32 divisor) : factor(0xffffffffu / (2 * divisor) + 1) {}
    // (2 n + 1) / (2 d) rounds down to n / d, and an even divisor is at least two.
    INLINE u32 operator()(u32 n) const { return u32(u64(2 * n + 1) * factor >> 32); }
};
