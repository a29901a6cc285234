// Products with quantised weights W: (n, k), outputs by inputs.
//
// The layout of the words is [panel][k / 32][bits][32]: 32 inputs of one of a panel's 32 outputs
// are `bits` words, a little-endian bit stream. The layout of scales and zero points is
// [panel][group][32]; a group has `group_blocks` times 32 inputs.
#include "common.cuh"

constexpr u32 PANEL = 32; // outputs of a panel
constexpr u32 BLOCK = 32; // inputs of a block

// How a warp reads the words of a panel: each lane takes COLUMNS adjacent outputs; the ALONG lanes
// of a column divide the inputs, FIELDS each.
template <int BITS> struct Reading {
    static constexpr u32 COLUMNS = 4; // one 128-bit load
    static constexpr u32 ALONG = 4;
    static constexpr u32 WORDS = 1;
    static constexpr u32 FIELDS = 32 / BITS;
};
// Fields of three bits straddle words, so a lane takes a whole block of one output.
template <> struct Reading<3> {
    static constexpr u32 COLUMNS = 1;
    static constexpr u32 ALONG = 1;
    static constexpr u32 WORDS = 3;
    static constexpr u32 FIELDS = 32;
};

// A matrix, and the part that this lane reads.
template <int BITS> struct Lane {
    using R = Reading<BITS>;
    static constexpr u32 COLUMNS = R::COLUMNS, WORDS = R::WORDS, FIELDS = R::FIELDS;
    // Inputs that a warp reads at a time.
    static constexpr u32 STEP = R::ALONG * FIELDS;

    const u32 *words; // of this lane's columns in the panel
    const void *scales;
    const u8 *zeros;
    u32 f32_scales, inputs, groups, group_inputs;
    u64 column; // of the first group's scales
    u32 first_input;
    u32 group;
    float scale[COLUMNS], zero[COLUMNS];

    INLINE Lane(const u32 *words, const void *scales, const u8 *zeros, u32 f32_scales, u32 panel,
                u32 inputs, u32 groups, u32 group_blocks)
        : words(words), scales(scales), zeros(zeros), f32_scales(f32_scales), inputs(inputs),
          groups(groups), group_inputs(group_blocks * BLOCK), group(PADDING) {
        const u32 lane = threadIdx.x % WARP;
        const u32 within = lane % (PANEL / COLUMNS) * COLUMNS;
        this->words += u64(panel) * (inputs / BLOCK * BITS) * PANEL + within;
        column = u64(panel) * groups * PANEL + within;
        first_input = lane / (PANEL / COLUMNS) * FIELDS;
    }

    // First input that this lane reads in a step; none from `inputs` on.
    INLINE u32 input(u32 step) const { return step * STEP + first_input; }

    // Words of the inputs from `input` on; they must exist.
    INLINE void load(u32 input, u32 (&to)[WORDS * COLUMNS]) const {
        const u32 *from = words + u64(input / FIELDS) * WORDS * PANEL;
        if (COLUMNS == 4) {
            const uint4 v = *reinterpret_cast<const uint4 *>(from);
            to[0] = v.x, to[1 % (WORDS * COLUMNS)] = v.y;
            to[2 % (WORDS * COLUMNS)] = v.z, to[3 % (WORDS * COLUMNS)] = v.w;
        } else {
            for (u32 w = 0; w < WORDS; w++) {
                to[w] = from[w * PANEL];
            }
        }
    }

    // Reads the scale and zero point of the inputs from `input` on.
    INLINE void enter(u32 input) {
        if (input / group_inputs == group) {
            return;
        }
        group = input / group_inputs;
        const u64 at = column + u64(group) * PANEL;
        for (u32 c = 0; c < COLUMNS; c++) {
            scale[c] = f32_scales ? static_cast<const float *>(scales)[at + c]
                                  : __half2float(static_cast<const f16 *>(scales)[at + c]);
            zero[c] = float(zeros[at + c]);
        }
    }

    // Field `j` of a column minus its zero point, exactly. The field becomes the mantissa of a
    // float whose lowest bit has the value one.
    INLINE float value(const u32 (&from)[WORDS * COLUMNS], u32 c, u32 j) const {
        if (BITS == 3) {
            const u32 bit = 3 * j, word = bit / 32, shift = bit % 32;
            u32 field = from[word % WORDS] >> shift;
            if (shift > 29) {
                field |= from[(word + 1) % WORDS] << (32 - shift);
            }
            return __uint_as_float((field & 7u) | 0x4b000000u) - (8388608.0f + zero[c]);
        }
        // Two fields share a shift; the lowest bit of the upper one is bit BITS.
        const u32 mask = (1u << BITS) - 1u, pair = from[c] >> (j / 2 * 2 * BITS);
        if (j % 2 == 0) {
            return __uint_as_float((pair & mask) | 0x4b000000u) - (8388608.0f + zero[c]);
        }
        const u32 exponent = (127u + 23u - BITS) << 23;
        return __uint_as_float((pair & (mask << BITS)) | exponent) -
               (float(8388608 >> BITS) + zero[c]);
    }
};

// w: (inputs, ld), columns from `first` on: the dequantised weight, transposed. One warp per panel
// and step.
template <typename T, int BITS>
INLINE void dequantise(const u32 *words, const void *scales, const u8 *zeros, T *w, u32 f32_scales,
                       u32 outputs, u32 inputs, u32 groups, u32 group_blocks, u32 ld, u32 first) {
    using L = Lane<BITS>;
    const u32 panel = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (panel * PANEL >= outputs) {
        return;
    }
    L lane(words, scales, zeros, f32_scales, panel, inputs, groups, group_blocks);
    const u32 input = lane.input(blockIdx.y);
    const u32 column = panel * PANEL + threadIdx.x % (PANEL / L::COLUMNS) * L::COLUMNS;
    if (input >= inputs || column >= outputs) {
        return;
    }
    u32 from[L::WORDS * L::COLUMNS];
    lane.load(input, from);
    lane.enter(input);
    w += u64(input) * ld + first + column;
#pragma unroll
    for (u32 j = 0; j < L::FIELDS; j++, w += ld) {
        float values[4];
#pragma unroll
        for (u32 c = 0; c < L::COLUMNS; c++) {
            values[c] = lane.scale[c] * lane.value(from, c, j);
        }
        if (L::COLUMNS == 4) {
            store4(w, values);
        } else {
            *w = from_float<T>(values[0]);
        }
    }
}

// y[.., first..] = x W^T + bias + residual for up to ROWS rows. y and residual: (rows, ld), x:
// (rows, inputs); a null bias or residual means zero. With a residual y is f32, as is the residual.
// One block per panel; its warps divide the inputs.
template <typename T, int BITS, int ROWS>
INLINE void product(const T *x, const u32 *words, const void *scales, const u8 *zeros,
                    const float *bias, const float *residual, void *y, u32 f32_scales, u32 rows,
                    u32 outputs, u32 inputs, u32 groups, u32 group_blocks, u32 ld, u32 first) {
    using L = Lane<BITS>;
    // Number of loads in flight.
    constexpr u32 AHEAD = ROWS * L::FIELDS <= 32 ? 4 : 2;
    // A scale costs one multiplication per row and column, or one per weight.
    constexpr bool SCALE_SUMS = ROWS <= 4;
    const u32 panel = blockIdx.x, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    L lane(words, scales, zeros, f32_scales, panel, inputs, groups, group_blocks);
    const u32 steps = (inputs + L::STEP - 1) / L::STEP;
    float sums[ROWS][L::COLUMNS] = {};
    for (u32 from = warp * AHEAD; from < steps; from += warps * AHEAD) {
        u32 packed[AHEAD][L::WORDS * L::COLUMNS];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (lane.input(from + a) < inputs) {
                lane.load(lane.input(from + a), packed[a]);
            }
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            const u32 input = lane.input(from + a);
            if (input >= inputs) {
                continue;
            }
            lane.enter(input);
            float part[SCALE_SUMS ? ROWS : 1][L::COLUMNS] = {};
#pragma unroll
            for (u32 j = 0; j < L::FIELDS; j += 4) {
                float weights[4][L::COLUMNS];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 c = 0; c < L::COLUMNS; c++) {
                        const float v = lane.value(packed[a], c, j + i);
                        weights[i][c] = SCALE_SUMS ? v : v * lane.scale[c];
                    }
                }
#pragma unroll
                for (u32 r = 0; r < ROWS; r++) {
                    // A missing row repeats the last one.
                    float v[4];
                    load4(x + u64(r < rows ? r : rows - 1) * inputs + input + j, v);
#pragma unroll
                    for (u32 i = 0; i < 4; i++) {
#pragma unroll
                        for (u32 c = 0; c < L::COLUMNS; c++) {
                            float &sum = SCALE_SUMS ? part[SCALE_SUMS ? r : 0][c] : sums[r][c];
                            sum = fmaf(v[i], weights[i][c], sum);
                        }
                    }
                }
            }
            if (SCALE_SUMS) {
#pragma unroll
                for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
                    for (u32 c = 0; c < L::COLUMNS; c++) {
                        sums[r][c] = fmaf(lane.scale[c], part[SCALE_SUMS ? r : 0][c], sums[r][c]);
                    }
                }
            }
        }
    }
    // [warp][row][32]
    float *shared = shared_memory<float>();
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
        for (u32 c = 0; c < L::COLUMNS; c++) {
            float sum = sums[r][c];
            for (u32 distance = PANEL / L::COLUMNS; distance < WARP; distance *= 2) {
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            }
            const u32 lane_id = threadIdx.x % WARP;
            if (lane_id < PANEL / L::COLUMNS) {
                shared[(warp * ROWS + r) * PANEL + lane_id * L::COLUMNS + c] = sum;
            }
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < rows * PANEL; i += blockDim.x) {
        const u32 r = i / PANEL, output = panel * PANEL + i % PANEL;
        if (output >= outputs) {
            continue;
        }
        float sum = 0.0f;
        for (u32 w = 0; w < warps; w++) {
            sum += shared[(w * ROWS + r) * PANEL + i % PANEL];
        }
        if (bias != nullptr) {
            sum += bias[first + output];
        }
        const u64 at = u64(r) * ld + first + output;
        if (residual != nullptr) {
            static_cast<float *>(y)[at] = sum + residual[at];
        } else {
            static_cast<T *>(y)[at] = from_float<T>(sum);
        }
    }
}

#define DEQUANTISE(T, suffix, BITS)                                                                \
    KERNEL(dequantise##BITS##_##suffix, 256, const u32 *words, const void *scales,                 \
           const u8 *zeros, T *w, u32 f32_scales, u32 outputs, u32 inputs, u32 groups,             \
           u32 group_blocks, u32 ld, u32 first) {                                                  \
        dequantise<T, BITS>(words, scales, zeros, w, f32_scales, outputs, inputs, groups,          \
                            group_blocks, ld, first);                                              \
    }
#define PRODUCT(T, suffix, BITS, ROWS, THREADS)                                                    \
    KERNEL(product##BITS##_##ROWS##_##suffix, THREADS, const T *x, const u32 *words,               \
           const void *scales, const u8 *zeros, const float *bias, const float *residual, void *y, \
           u32 f32_scales, u32 rows, u32 outputs, u32 inputs, u32 groups, u32 group_blocks,        \
           u32 ld, u32 first) {                                                                    \
        product<T, BITS, ROWS>(x, words, scales, zeros, bias, residual, y, f32_scales, rows,       \
                               outputs, inputs, groups, group_blocks, ld, first);                  \
    }
#define WIDTH(T, suffix, BITS) WIDTH_OF(T, suffix, BITS)
#define WIDTH_OF(T, suffix, BITS)                                                                    \
    DEQUANTISE(T, suffix, BITS)                                                                    \
    PRODUCT(T, suffix, BITS, 1, 512)                                                               \
    PRODUCT(T, suffix, BITS, 2, 512)                                                               \
    PRODUCT(T, suffix, BITS, 4, 256)                                                               \
    PRODUCT(T, suffix, BITS, 8, 256)                                                               \
    PRODUCT(T, suffix, BITS, 16, 256)
// A driver compiles a whole file when it loads it, so each file has one width.
#ifdef ONLY_BITS
#define WIDTHS(T, suffix) WIDTH(T, suffix, ONLY_BITS)
#else
#define WIDTHS(T, suffix)                                                                          \
    WIDTH(T, suffix, 2) WIDTH(T, suffix, 3) WIDTH(T, suffix, 4) WIDTH(T, suffix, 8)
#endif
FOR_EACH_TYPE(WIDTHS)
