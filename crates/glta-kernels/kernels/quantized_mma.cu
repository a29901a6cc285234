// Products of up to 64 rows with packed weights, on the tensor cores.
//
// A block has four panels of outputs, one per warp, and a part of the inputs. It copies
// activations, words and scales to shared memory in stages, asynchronously. A warp dequantises its
// words in registers: they are in the order of the first operand of mma.m16n8k16, whose rows are
// outputs.
// The second operand has eight rows of activations per tile. A weight without its scale is an
// integer, which is exact in 16 bits; the sums of a group, in f32, are multiplied by its scale. The
// last block to finish a panel adds the sums of all parts of the inputs, in order.
#include "matrix.cuh"
#include "packed.cuh"

namespace {
constexpr u32 PANELS = 4; // of a block
constexpr u32 THREADS = PANELS * WARP;
constexpr u32 TILE_ROWS = 8;
// Squares of inputs in a stage: few, where activations take much shared memory.
template <int TILES> constexpr u32 SQUARES = TILES <= 2 ? 4 : 2;
constexpr u32 STAGES = 3;
// Blocks of a multiprocessor for which there are registers, so that none are spilled.
template <int TILES> constexpr u32 BLOCKS = TILES <= 2 ? 4 : TILES == 4 ? 3 : 2;

// Activations of a chunk in shared memory.
template <int TILES> struct alignas(16) Inputs {
    u16 x[TILE_ROWS * TILES][SQUARES<TILES> * BLOCK];

    // Eight inputs of a row. In odd rows neighbouring fours are swapped, so that the same inputs of
    // two rows are in different banks.
    INLINE u16 *eight(u32 row, u32 eight) { return x[row] + (eight ^ row % 2 * 4) * 8; }
};

// Weights of a chunk in shared memory.
struct alignas(16) Group {
    u32 scales[PANEL]; // f16 in the first half, or f32
    u8 zeros[PANEL];
};
template <int BITS, int TILES> struct alignas(16) Stage {
    u32 words[PANELS][SQUARES<TILES>][Fields<BITS>::SQUARE];
    Group groups[PANELS][SQUARES<TILES>]; // of squares that start a group
};

// The fields of a pair, as values of T, minus a zero point. The fields are the lowest bits of the
// mantissa of a number, so the difference is exact.
template <typename T, int BITS> struct Lifted;
template <int BITS> struct Lifted<f16, BITS> {
    u32 base;
    INLINE void set_zero(float zero) { base = pack<f16>(-1024.0f - zero, -1024.0f - zero); }
    INLINE u32 pair(const Fields<BITS> &fields, u32 pair) const {
        return add_pairs(fields.pair(pair, 0x64006400u), base, f16());
    }
};
template <int BITS> struct Lifted<bf16, BITS> {
    u32 base;
    INLINE void set_zero(float zero) { base = pack<bf16>(-128.0f - zero, -128.0f - zero); }
    INLINE u32 pair(const Fields<BITS> &fields, u32 pair) const {
        return add_pairs(fields.pair(pair, 0x43004300u), base, bf16());
    }
};
// The mantissa of bf16 has seven bits, so the difference is computed in f32. It has at most eight
// significant bits.
template <> struct Lifted<bf16, 8> {
    float base;
    INLINE void set_zero(float zero) { base = 8388608.0f + zero; }
    INLINE u32 pair(const Fields<8> &fields, u32 pair) const {
        const u32 both = fields.pair(pair, 0);
        const float low = __uint_as_float(insert(both, 0xffu, 0x4b000000u)) - base;
        const float high = __uint_as_float(both >> 16 | 0x4b000000u) - base;
        return __float_as_uint(low) >> 16 | (__float_as_uint(high) & 0xffff0000u);
    }
};
} // namespace

// Copies the inputs of the chunks from `begin` on, multiplied by the weights of a norm, to shared
// memory. Returns, in `squares`, the sum of the squares of the inputs of each row.
template <typename T>
INLINE void copy_normed(const float *x, const float *norm, u32 rows, u32 inputs, u32 begin, u32 end,
                        Inputs<1> *to, float *scratch, float (&squares)[TILE_ROWS]) {
    constexpr u32 CHUNK = SQUARES<1> * BLOCK, CHUNK_EIGHTS = CHUNK / 8;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 row = 0; row < TILE_ROWS; row++) {
        float sum = 0.0f;
        for (u32 i = threadIdx.x; i < (end - begin) * CHUNK_EIGHTS; i += THREADS) {
            const u32 input = begin * CHUNK + i * 8;
            uint4 v = {0, 0, 0, 0};
            if (row < rows && input < inputs) {
                float from[8], w[8];
                load4(x + u64(row) * inputs + input, from);
                load4(x + u64(row) * inputs + input + 4, from + 4);
                load4(norm + input, w);
                load4(norm + input + 4, w + 4);
#pragma unroll
                for (u32 e = 0; e < 8; e++) {
                    sum = fmaf(from[e], from[e], sum);
                    from[e] *= w[e];
                }
                v.x = pack<T>(from[0], from[1]), v.y = pack<T>(from[2], from[3]);
                v.z = pack<T>(from[4], from[5]), v.w = pack<T>(from[6], from[7]);
            }
            u16 *at = to[i / CHUNK_EIGHTS].eight(row, i % CHUNK_EIGHTS);
            *reinterpret_cast<uint4 *>(at) = v;
        }
        squares[row] = 0.0f;
        if (row < rows) {
            sum = warp_sum(sum);
            if (lane == 0) {
                scratch[row * PANELS + warp] = sum;
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 row = 0; row < TILE_ROWS; row++) {
        for (u32 w = 0; w < PANELS && row < rows; w++) {
            squares[row] += scratch[row * PANELS + w];
        }
    }
}

// The arguments are those of `product` in quantized.cu, and sums of parts `parts` with a counter
// per block of panels, which starts and ends at zero. With `gated` panels, the outputs are two
// halves, of that many panels each; y: (rows, ld) is silu(first half) * second half. If NORMED, x
// is f32 and the product is that of x / rms(x) * norm: the rows of up to one tile are multiplied by
// 1 / rms(x) at the end, because their squares are summed on the way.
template <typename T, int BITS, int TILES, bool NORMED>
INLINE void product_mma(const void *x_of_any_type, const float *norm, float eps, const u32 *words,
                        const void *scales, const u8 *zeros, const float *bias, const float *residual, void *y, float *parts,
                        u32 *counters, u32 f32_scales, u32 rows, u32 outputs, u32 inputs,
                        u32 groups, u32 group_blocks, u32 ld, u32 first, u32 gated) {
    using Stage = ::Stage<BITS, TILES>;
    using Inputs = ::Inputs<TILES>;
    constexpr u32 SQUARE = Fields<BITS>::SQUARE, SQUARES = ::SQUARES<TILES>;
    constexpr u32 CHUNK = SQUARES * BLOCK, CHUNK_EIGHTS = CHUNK / 8;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u32 blocks = inputs / BLOCK, chunks = (blocks + SQUARES - 1) / SQUARES;
    const u32 begin = chunks * blockIdx.y / gridDim.y;
    const u32 end = chunks * (blockIdx.y + 1) / gridDim.y;
    // Inputs of every stage, or of the whole part; stages; scratch.
    const u32 most = (chunks + gridDim.y - 1) / gridDim.y;
    Inputs *x_chunks = shared_memory<Inputs>();
    Stage *stages = reinterpret_cast<Stage *>(x_chunks + (NORMED ? most : STAGES));
    float *scratch = reinterpret_cast<float *>(stages + STAGES);
    const T *x = static_cast<const T *>(x_of_any_type);
    // A block of gated panels has two of each half.
    const u32 own = blockIdx.x * (PANELS / 2) + warp % 2;
    const u32 panel = gated == 0 ? blockIdx.x * PANELS + warp : own + warp / 2 * gated;
    const bool exists = gated == 0 ? panel * PANEL < outputs : own < gated;
    const Divisor group_of(group_blocks);

    // What this thread copies of every chunk: pointers and counts move on with each, so that little
    // is computed in the loop. Of the activations, eight inputs of some rows; of its warp's words,
    // 16 bytes at a time; of scales and zero points, 16 bytes of the groups of some squares. What
    // does not exist is not copied: other rows do not depend on it.
    constexpr u32 COPIED_ROWS = THREADS / CHUNK_EIGHTS; // at a time
    const u32 own_row = threadIdx.x / CHUNK_EIGHTS, own_eight = threadIdx.x % CHUNK_EIGHTS;
    const T *next_x = x + u64(own_row) * inputs + begin * CHUNK + own_eight * 8;
    int inputs_left = int(inputs) - int(begin * CHUNK + own_eight * 8);
    const u32 *next_words =
        words + (u64(exists ? panel : 0) * blocks + begin * SQUARES) * SQUARE + lane * 4;
    int squares_left = exists ? int(blocks) - int(begin * SQUARES) : 0;
    const u32 scale_bytes = f32_scales ? 4 * PANEL : 2 * PANEL;
    const u32 piece = lane % 16, square_of = lane / 16;
    const bool is_scale = piece < scale_bytes / 16;
    const u32 row_bytes = is_scale ? scale_bytes : PANEL;
    const u8 *groups_from = (is_scale ? static_cast<const u8 *>(scales) : zeros) +
                            u64(exists ? panel : 0) * groups * row_bytes +
                            (is_scale ? piece : piece % 2) * 16;
    // Lanes 8 and 9 of 16 copy zero points, behind the scales.
    const u32 group_at = (warp * SQUARES + square_of) * sizeof(Group) + piece * 16;
    u32 next_square = begin * SQUARES + square_of;
    const u32 last_square = exists && (is_scale || piece / 2 == 4) ? blocks : 0;
    u32 copied = 0; // slot
    const auto copy = [&] {
        Stage &to = stages[copied];
        if constexpr (!NORMED) {
#pragma unroll
            for (u32 row = 0; row < TILE_ROWS * TILES; row += COPIED_ROWS) {
                if (own_row + row < rows && inputs_left > 0) {
                    copy_later(x_chunks[copied].eight(own_row + row, own_eight),
                               next_x + u64(row) * inputs, true);
                }
            }
            next_x += CHUNK, inputs_left -= CHUNK;
        }
#pragma unroll
        for (u32 i = 0; i < SQUARES * SQUARE / 4; i += WARP) {
            const u32 square = (i + lane) / (SQUARE / 4);
            if (square < SQUARES && int(square) < squares_left) {
                copy_later(to.words[warp][0] + (i + lane) * 4, next_words + i * 4, true);
            }
        }
        next_words += SQUARES * SQUARE, squares_left -= SQUARES;
#pragma unroll
        for (u32 square = 0; square < SQUARES; square += 2, next_square += 2) {
            const u32 group = group_of(next_square);
            if (next_square < last_square &&
                (group * group_blocks == next_square || next_square == begin * SQUARES)) {
                u8 *at = reinterpret_cast<u8 *>(to.groups) + group_at;
                copy_later(at + square * sizeof(Group), groups_from + u64(group) * row_bytes, true);
            }
        }
        copied = copied + 1 == STAGES ? 0 : copied + 1;
    };

    // Of every tile a lane has four outputs (m, e / 2) of two rows (e % 2).
    float sums[2][TILES][4] = {}, group_sums[2][TILES][4] = {}, scale[COLUMNS] = {};
    Lifted<T, BITS> lifted[COLUMNS] = {};
    const auto add_group = [&] {
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    sums[m][n][e] = fmaf(scale[2 * m + e / 2], group_sums[m][n][e], sums[m][n][e]);
                    group_sums[m][n][e] = 0.0f;
                }
            }
        }
    };

#pragma unroll
    for (u32 s = 0; s + 1 < STAGES; s++) {
        if (begin + s < end) {
            copy();
        }
        end_copies();
    }
    float squares[TILE_ROWS];
    if constexpr (NORMED) {
        copy_normed<T>(static_cast<const float *>(x_of_any_type), norm, rows, inputs, begin, end,
                       x_chunks, scratch, squares);
    }
    u32 group_end = 0; // first square behind the current group
    u32 slot = 0;
    const u32 own_blocks = exists ? blocks : 0;
    for (u32 chunk = begin; chunk < end; chunk++) {
        await_copies_but<STAGES - 2>();
        // All threads have copied this stage, and none reads the one that is copied next.
        __syncthreads();
        if (chunk + STAGES - 1 < end) {
            copy();
        }
        end_copies();
        Stage &stage = stages[slot];
        Inputs &chunk_inputs = x_chunks[NORMED ? chunk - begin : slot];
        slot = slot + 1 == STAGES ? 0 : slot + 1;
#pragma unroll
        for (u32 square = 0; square < SQUARES; square++) {
            const u32 block = chunk * SQUARES + square;
            if (block >= own_blocks) {
                break;
            }
            if (block >= group_end) {
                add_group();
                group_end = (group_of(block) + 1) * group_blocks;
                float zero[COLUMNS];
                load_scales(stage.groups[warp][square].scales, f32_scales, lane_column(), scale);
                load_zeros(stage.groups[warp][square].zeros + lane_column(), zero);
#pragma unroll
                for (u32 c = 0; c < COLUMNS; c++) {
                    lifted[c].set_zero(zero[c]);
                }
            }
            Fields<BITS> fields;
            fields.load(stage.words[warp][square], [](auto from) { return *from; });
            // First operand [m][k]: the lane's outputs 2 m and 2 m + 1, and inputs 4 k .. 4 k + 4.
            u32 a[2][2][4];
#pragma unroll
            for (u32 m = 0; m < 2; m++) {
#pragma unroll
                for (u32 i = 0; i < 8; i++) {
                    const u32 column = 2 * m + i % 2;
                    a[m][i / 4][i % 4] =
                        lifted[column].pair(fields, COLUMNS * column + i / 4 * 2 + i / 2 % 2);
                }
            }
#pragma unroll
            for (u32 n = 0; n < TILES; n++) {
                const uint4 b = *reinterpret_cast<const uint4 *>(
                    chunk_inputs.eight(n * 8 + lane / 4, square * 4 + lane % 4));
#pragma unroll
                for (u32 m = 0; m < 2; m++) {
                    multiply(group_sums[m][n], a[m][0], b.x, b.y, T());
                    multiply(group_sums[m][n], a[m][1], b.z, b.w, T());
                }
            }
        }
    }
    add_group();

    if (gridDim.y > 1) {
        // [part][block of panels][sum][thread]
        const u64 step = u64(gridDim.x) * 8 * TILES * THREADS;
        // [part][block of panels][row]
        float *part_squares = parts + gridDim.y * step + blockIdx.x * TILE_ROWS;
        if (NORMED && threadIdx.x == 0) {
#pragma unroll
            for (u32 row = 0; row < TILE_ROWS; row++) {
                part_squares[blockIdx.y * gridDim.x * TILE_ROWS + row] = squares[row];
            }
        }
        float *mine = parts + blockIdx.x * (8 * TILES * THREADS) + threadIdx.x;
#pragma unroll
        for (u32 i = 0; i < 8 * TILES; i++) {
            mine[blockIdx.y * step + i * THREADS] = sums[i / (4 * TILES)][i / 4 % TILES][i % 4];
        }
        if (!finishes_last(counters + blockIdx.x, gridDim.y)) {
            return;
        }
        for (u32 part = 0; part < gridDim.y; part++) {
#pragma unroll
            for (u32 i = 0; i < 8 * TILES; i++) {
                float &sum = sums[i / (4 * TILES)][i / 4 % TILES][i % 4];
                sum = (part == 0 ? 0.0f : sum) + __ldcg(mine + part * step + i * THREADS);
            }
        }
        for (u32 part = 0; NORMED && part < gridDim.y; part++) {
#pragma unroll
            for (u32 row = 0; row < TILE_ROWS; row++) {
                squares[row] = (part == 0 ? 0.0f : squares[row]) +
                               __ldcg(part_squares + part * gridDim.x * TILE_ROWS + row);
            }
        }
    }
    if (NORMED && threadIdx.x == 0) {
#pragma unroll
        for (u32 row = 0; row < TILE_ROWS; row++) {
            scratch[TILE_ROWS * PANELS + row] =
                1.0f / sqrtf(squares[row] / float(inputs) + eps);
        }
    }

    // Behind this barrier nobody reads the stages, or the number of finished blocks.
    // The second half fits before `scratch`.
    __syncthreads();
    float *second = shared_memory<float>(); // of gated halves: [panel][row][32]
    const u32 output = panel * PANEL + lane_column();
#pragma unroll
    for (u32 i = 0; i < 2 * TILES; i++) {
        const u32 n = i / 2, r = i % 2, row = n * 8 + lane % 4 * 2 + r;
        float v[4] = {sums[0][n][r], sums[0][n][2 + r], sums[1][n][r], sums[1][n][2 + r]};
#pragma unroll
        for (u32 c = 0; NORMED && c < 4; c++) {
            v[c] *= scratch[TILE_ROWS * PANELS + row];
        }
        if (exists && output < outputs && row < rows) {
            const u32 column = first + output;
            if (bias != nullptr) {
                float b[4];
                load4(bias + column, b);
#pragma unroll
                for (u32 c = 0; c < 4; c++) {
                    v[c] += b[c];
                }
            }
            const u64 at = u64(row) * ld + column;
            if (gated != 0) {
                if (warp >= 2) {
                    store4(second + ((warp - 2) * 8 * TILES + row) * PANEL + lane_column(), v);
                }
            } else if (residual != nullptr) {
                float before[4];
                load4(residual + at, before);
#pragma unroll
                for (u32 c = 0; c < 4; c++) {
                    v[c] += before[c];
                }
                store4(static_cast<float *>(y) + at, v);
            } else {
                store4(static_cast<T *>(y) + at, v);
            }
        }
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            sums[c / 2][n][c % 2 * 2 + r] = v[c];
        }
    }
    if (gated == 0) {
        return;
    }
    __syncthreads();
    if (!exists || warp >= 2) {
        return;
    }
#pragma unroll
    for (u32 i = 0; i < 2 * TILES; i++) {
        const u32 n = i / 2, r = i % 2, row = n * 8 + lane % 4 * 2 + r;
        if (row < rows) {
            float v[4], up[4];
            load4(second + (warp * 8 * TILES + row) * PANEL + lane_column(), up);
#pragma unroll
            for (u32 c = 0; c < 4; c++) {
                const float gate = sums[c / 2][n][c % 2 * 2 + r];
                v[c] = gate * sigmoid(gate) * up[c];
            }
            store4(static_cast<T *>(y) + u64(row) * ld + output, v);
        }
    }
}

#define PRODUCT(T, suffix, BITS, TILES)                                                            \
    BOUND_KERNEL(product_mma##BITS##_##TILES##_##suffix, THREADS, (THREADS, BLOCKS<TILES>),        \
                 const T *x, const u32 *words, const void *scales, const u8 *zeros,                \
                 const float *bias, const float *residual, void *y, float *parts, u32 *counters,   \
                 u32 f32_scales, u32 rows, u32 outputs, u32 inputs, u32 groups, u32 group_blocks,  \
                 u32 ld, u32 first, u32 gated) {                                                   \
        product_mma<T, BITS, TILES, false>(x, nullptr, 0.0f, words, scales, zeros, bias, residual, \
                                           y, parts, counters, f32_scales, rows, outputs, inputs,  \
                                           groups, group_blocks, ld, first, gated);                \
    }
// Products in f16 would overflow before they are divided.
#define NORMED(BITS)                                                                               \
    KERNEL(product_normed##BITS##_bf16, THREADS, const float *x, const float *norm, float eps,     \
           const u32 *words, const void *scales, const u8 *zeros, const float *bias, bf16 *y,      \
           float *parts, u32 *counters, u32 f32_scales, u32 rows, u32 outputs, u32 inputs,         \
           u32 groups, u32 group_blocks, u32 ld, u32 first, u32 gated) {                           \
        product_mma<bf16, BITS, 1, true>(x, norm, eps, words, scales, zeros, bias, nullptr, y,     \
                                         parts, counters, f32_scales, rows, outputs, inputs,       \
                                         groups, group_blocks, ld, first, gated);                  \
    }
#define TYPE(T, suffix, BITS)                                                                      \
    PRODUCT(T, suffix, BITS, 1)                                                                    \
    PRODUCT(T, suffix, BITS, 2)                                                                    \
    PRODUCT(T, suffix, BITS, 4)                                                                    \
    PRODUCT(T, suffix, BITS, 8)
#define WIDTH(BITS) WIDTH_OF(BITS)
#define WIDTH_OF(BITS) TYPE(f16, f16, BITS) TYPE(bf16, bf16, BITS) NORMED(BITS)
// A driver compiles a whole file when it loads it, so each file has one width.
#ifdef ONLY_BITS
WIDTH(ONLY_BITS)
#else
WIDTH(2) WIDTH(3) WIDTH(4) WIDTH(8)
#endif
