// Products with packed weights on the f32 units, and dequantised weights.
#include "packed.cuh"

// w: (inputs, ld), columns from `first` on: the dequantised weight, transposed. One warp per panel
// and square.
template <typename T, int BITS>
INLINE void dequantise(const u32 *words, const void *scales, const u8 *zeros, T *w, u32 f32_scales,
                       u32 outputs, u32 inputs, u32 groups, u32 group_blocks, u32 ld, u32 first) {
    const u32 panel = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, block = blockIdx.y;
    const u32 column = panel * PANEL + lane_column();
    if (column >= outputs) {
        return;
    }
    Fields<BITS> fields;
    fields.load(words + (u64(panel) * (inputs / BLOCK) + block) * Fields<BITS>::SQUARE,
                [](auto from) { return load_once(from); });
    float scale[COLUMNS], zero[COLUMNS], base[COLUMNS][2];
    const u64 at = (u64(panel) * groups + block / group_blocks) * PANEL + lane_column();
    load_scales(scales, f32_scales, at, scale);
    load_zeros(zeros + at, zero);
#pragma unroll
    for (u32 c = 0; c < COLUMNS; c++) {
        Fields<BITS>::bases(zero[c], base[c]);
    }
    w += u64(block * BLOCK + lane_input()) * ld + first + column;
#pragma unroll
    for (u32 j = 0; j < FIELDS; j++, w += ld) {
        float values[COLUMNS];
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) {
            values[c] = scale[c] * fields.value(c, j, base[c]);
        }
        store4(w, values);
    }
}

// y[.., first..] = x W^T + bias + residual for up to ROWS rows. y and residual: (rows, ld), x:
// (rows, inputs); a null bias or residual means zero. With a residual y is f32, as is the residual.
// One block per panel; its warps divide the inputs.
template <typename T, int BITS, int ROWS>
INLINE void product(const T *x, const u32 *words, const void *scales, const u8 *zeros,
                    const float *bias, const float *residual, void *y, u32 f32_scales, u32 rows,
                    u32 outputs, u32 inputs, u32 groups, u32 group_blocks, u32 ld, u32 first) {
    constexpr u32 SQUARE = Fields<BITS>::SQUARE;
    // Number of loads in flight.
    constexpr u32 AHEAD = BITS == 3 && ROWS <= 4 ? 4 : (ROWS <= 4 ? 16 : 8) / BITS;
    // A scale costs one multiplication per row and column, or one per weight.
    constexpr bool SCALE_SUMS = ROWS <= 4;
    const u32 panel = blockIdx.x, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const u32 blocks = inputs / BLOCK;
    const Divisor group_of(group_blocks);
    const u64 column = u64(panel) * groups * PANEL + lane_column();
    words += (u64(panel) * blocks + warp * AHEAD) * SQUARE;
    x += warp * AHEAD * BLOCK + lane_input();
    u32 group_end = 0; // first block behind the group
    float scale[COLUMNS], base[COLUMNS][2], sums[ROWS][COLUMNS] = {};
    for (u32 from = warp * AHEAD; from < blocks; from += warps * AHEAD) {
        Fields<BITS> fields[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            if (from + a < blocks) {
                fields[a].load(words + a * SQUARE, [](auto from) { return load_once(from); });
            }
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
            const u32 block = from + a;
            if (block >= blocks) {
                break;
            }
            if (block >= group_end) {
                const u32 group = group_of(block);
                group_end = (group + 1) * group_blocks;
                float zero[COLUMNS];
                load_scales(scales, f32_scales, column + group * PANEL, scale);
                load_zeros(zeros + column + group * PANEL, zero);
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    Fields<BITS>::bases(zero[c], base[c]);
                }
            }
            float part[SCALE_SUMS ? ROWS : 1][COLUMNS] = {};
#pragma unroll
            for (u32 j = 0; j < FIELDS; j += 4) {
                float weights[4][COLUMNS];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 c = 0; c < COLUMNS; c++) {
                        const float v = fields[a].value(c, j + i, base[c]);
                        weights[i][c] = SCALE_SUMS ? v : v * scale[c];
                    }
                }
#pragma unroll
                for (u32 r = 0; r < ROWS; r++) {
                    // A missing row repeats the last one.
                    float v[4];
                    const u32 row = ROWS == 1 || r < rows ? r : rows - 1;
                    load4(x + u64(row) * inputs + a * BLOCK + j, v);
#pragma unroll
                    for (u32 i = 0; i < 4; i++) {
#pragma unroll
                        for (u32 c = 0; c < COLUMNS; c++) {
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
                    for (u32 c = 0; c < COLUMNS; c++) {
                        sums[r][c] = fmaf(scale[c], part[SCALE_SUMS ? r : 0][c], sums[r][c]);
                    }
                }
            }
        }
        words += warps * AHEAD * SQUARE, x += warps * AHEAD * BLOCK;
    }
    // [warp][row][32]
    float *shared = shared_memory<float>();
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
#pragma unroll
        for (u32 c = 0; c < COLUMNS; c++) {
            // The four lanes of a column are neighbours.
            float sum = sums[r][c];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            if (threadIdx.x % 4 == 0) {
                shared[(warp * ROWS + r) * PANEL + lane_column() + c] = sum;
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
// More rows of 16-bit types are for the tensor cores (quantized_mma.cu).
#define WIDTH(BITS) WIDTH_OF(BITS)
#define WIDTH_OF(BITS)                                                                             \
    DEQUANTISE(float, f32, BITS)                                                                   \
    DEQUANTISE(f16, f16, BITS)                                                                     \
    DEQUANTISE(bf16, bf16, BITS)                                                                   \
    PRODUCT(f16, f16, BITS, 1, 512)                                                                \
    PRODUCT(bf16, bf16, BITS, 1, 512)                                                              \
    PRODUCT(float, f32, BITS, 1, 512)                                                              \
    PRODUCT(float, f32, BITS, 2, 512)                                                              \
    PRODUCT(float, f32, BITS, 4, 256)                                                              \
    PRODUCT(float, f32, BITS, 8, 256)                                                              \
    PRODUCT(float, f32, BITS, 16, 256)
// A driver compiles a whole file when it loads it, so each file has one width.
#ifdef ONLY_BITS
WIDTH(ONLY_BITS)
#else
WIDTH(2) WIDTH(3) WIDTH(4) WIDTH(8)
#endif
