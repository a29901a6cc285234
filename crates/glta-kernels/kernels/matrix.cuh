// The tensor cores: a warp multiplies 16 x 16 by 16 x 8 values of 16 bits and adds in f32
// (mma.m16n8k16). Operands come from tiles of rows in shared memory. The PTX ISA, "Matrix Fragments
// for mma.m16n8k16", defines which lane has which element.
#pragma once
#include "common.cuh"

#ifdef __CUDACC__
// Loads four matrices of 8 x 8 values. Lane l passes the shared-memory address of row l % 8 of
// matrix l / 8. It receives, for each matrix or its transpose, the two neighbours from column 2 (l
// % 4) in row l / 4.
template <bool TRANSPOSED> INLINE void load_matrices(u32 (&to)[4], const void *row) {
    const u32 at = u32(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(at)
                     : "memory");
    }
}
// sums += a b; the last argument determines the type of the operands.
#define MULTIPLY(T, type)                                                                          \
    INLINE void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1, T) {                 \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                 \
            ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                 \
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                           \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                       \
    }
MULTIPLY(f16, "f16")
MULTIPLY(bf16, "bf16")

// Starts to copy 16 bytes to shared memory, or zeros without a source.
INLINE void copy_later(void *to, const void *from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     u32(__cvta_generic_to_shared(to))),
                 "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
                 : "memory");
}
// Waits for this thread's copies.
INLINE void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Ends a group of copies, and waits for all but the last N groups.
INLINE void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> INLINE void await_copies_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Sums of the pairs of 16-bit values of two words. bf16 has no addition before sm_90.
INLINE u32 add_pairs(u32 a, u32 b, f16) {
    u32 sum;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
}
INLINE u32 add_pairs(u32 a, u32 b, bf16) {
    u32 sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return sum;
}

// 2 ** x, or zero if the result is not a normal number.
INLINE float power_of_two(float x) {
    asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
    return x;
}
#else
#include "host/matrix.h"
#endif

namespace tensor_cores {
constexpr u32 TILE = 64; // rows of a block
constexpr u32 WARP_ROWS = 16;
constexpr u32 THREADS = TILE / WARP_ROWS * WARP;

// Sums of a warp's 16 rows and N columns. Of every eight columns a lane has two neighbours, in two
// rows that are eight apart.
template <int N> using Sums = float[N / 8][4];

INLINE u32 warp_row() { return threadIdx.x / WARP * WARP_ROWS; }
// Row in the block, and column, of a lane's sum `[eight][e]`.
INLINE u32 sum_row(u32 e) { return warp_row() + threadIdx.x % WARP / 4 + e / 2 * 8; }
INLINE u32 sum_column(u32 eight, u32 e) { return eight * 8 + threadIdx.x % 4 * 2 + e % 2; }

// Position of eight columns of a row in a tile, (rows, D). Columns are permuted within 128 bytes,
// so that the same columns of eight rows are in different banks.
template <int D> INLINE u32 tile_at(u32 row, u32 eight) { return row * D + (eight ^ row % 8) * 8; }

// Starts to copy rows to a tile; missing rows and columns are zero.
template <typename T, int D, u32 ROWS>
INLINE void load_tile(T *to, const T *from, u32 stride, u32 rows, u32 dim) {
#pragma unroll 2 // More addresses at a time would take registers that sums need.
    for (u32 at = 0; at < ROWS * (D / 8); at += THREADS) {
        const u32 i = at + threadIdx.x, row = i / (D / 8), eight = i % (D / 8);
        const bool exists = row < rows && eight * 8 < dim;
        copy_later(to + tile_at<D>(row, eight),
                   exists ? from + u64(row) * stride + eight * 8 : from, exists);
    }
}

// Waits until all copies of all threads have finished.
INLINE void await_tiles() {
    await_copies();
    __syncthreads();
}

// sums += a b' for the warp's rows of one tile, (16, D), and another, (N, D).
template <typename T, int D, int N>
INLINE void multiply_rows(Sums<N> &sums, const T *a, const T *b) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 k = 0; k < D / 16; k++) {
        u32 x[4];
        load_matrices<false>(x, a + tile_at<D>(lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (u32 n = 0; n < N / 16; n++) {
            u32 y[4];
            load_matrices<false>(
                y, b + tile_at<D>(n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
            multiply(sums[2 * n], x, y[0], y[1], T());
            multiply(sums[2 * n + 1], x, y[2], y[3], T());
        }
    }
}

// sums += weights rows for weights (16, K), rounded to 16 bits, and a tile (K, D).
template <typename T, int D, int K>
INLINE void weigh_rows(Sums<D> &sums, const Sums<K> &weights, const T *rows) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 k = 0; k < K / 16; k++) {
        // The layout of a lane's sums equals that of a first operand.
        u32 x[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const float(&w)[4] = weights[2 * k + i / 2];
            x[i] = pack<T>(w[i % 2 * 2], w[i % 2 * 2 + 1]);
        }
#pragma unroll
        for (u32 n = 0; n < D / 16; n++) {
            u32 y[4];
            load_matrices<true>(y, rows + tile_at<D>(k * 16 + lane % 16, 2 * n + lane / 16));
            multiply(sums[2 * n], x, y[0], y[1], T());
            multiply(sums[2 * n + 1], x, y[2], y[3], T());
        }
    }
}

// Multiplies each of the lane's two rows by its factor.
template <typename T, int D>
INLINE void write_sums(const Sums<D> &sums, const float (&factor)[2], T *to, u32 stride, u32 rows,
                       u32 dim) {
#pragma unroll
    for (u32 n = 0; n < D / 8; n++) {
#pragma unroll
        for (u32 e = 0; e < 4; e += 2) {
            const u32 row = sum_row(e), column = sum_column(n, e);
            if (row < rows && column < dim) {
                const float f = factor[e / 2];
                *reinterpret_cast<u32 *>(to + u64(row) * stride + column) =
                    pack<T>(sums[n][e] * f, sums[n][e + 1] * f);
            }
        }
    }
}
} // namespace tensor_cores
