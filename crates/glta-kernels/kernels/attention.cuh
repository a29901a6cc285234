// Code that the attention kernels share. They read a fused projection `qkv: (tokens, stride)` after
// RoPE: rows of query heads, key heads and value heads.
//
// A sequence's keys are `shared_keys` rows of a block that precedes every sequence, followed by its
// own: the rows of `qkv`, or of a cache that ends with them. Rows of the block and of a cache are
// the key and value part of such a row.
#pragma once
#include "common.cuh"

// Sizes and offsets that all kernels need.
struct Heads {
    u32 queries, keys, dim;
    float scale;
    INLINE u32 stride() const { return (queries + 2 * keys) * dim; }
};

// Keys and values of one head, row by row.
template <typename T> struct Keys {
    const T *keys, *values;
    u32 stride, len;
};

template <typename T>
INLINE Keys<T> shared_keys(const T *block, u32 len, u32 head, Heads heads) {
    const T *keys = block + head * heads.dim;
    return {keys, keys + heads.keys * heads.dim, 2 * heads.keys * heads.dim, len};
}

// `caches`: for each sequence the address of its cache (layers, capacity, row) and `capacity << 32
// | keys`; null if `qkv` has the keys.
template <typename T>
INLINE Keys<T> own_keys(const T *qkv, const u32 *starts, const u64 *caches, u32 layer, u32 sequence,
                        u32 head, Heads heads) {
    if (caches == nullptr) {
        const u32 start = starts[sequence];
        const T *keys = qkv + u64(start) * heads.stride() + (heads.queries + head) * heads.dim;
        return {keys, keys + heads.keys * heads.dim, heads.stride(), starts[sequence + 1] - start};
    }
    const u64 sizes = caches[2 * sequence + 1];
    const u32 width = 2 * heads.keys * heads.dim;
    const T *block = reinterpret_cast<const T *>(caches[2 * sequence]) +
                     u64(layer) * u32(sizes >> 32) * width;
    return shared_keys(block, u32(sizes), head, heads);
}

// Combines the LANES adjacent lanes of a row.
template <int LANES> INLINE float row_max(float x) {
    for (int lane = LANES / 2; lane > 0; lane /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lane));
    }
    return x;
}
template <int LANES> INLINE float row_sum(float x) {
    for (int lane = LANES / 2; lane > 0; lane /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, lane);
    }
    return x;
}

// The queries of one block; `tiles` has (sequence, first row of `qkv`).
template <u32 TILE> struct Queries {
    u32 sequence, first, rows, head;
    u32 seen; // own keys that the first one sees; each next one sees one more

    INLINE Queries(const u32 *tiles, const u32 *starts, u32 own_keys) : head(blockIdx.y) {
        sequence = tiles[2 * blockIdx.x], first = tiles[2 * blockIdx.x + 1];
        const u32 end = starts[sequence + 1];
        rows = end - first < TILE ? end - first : TILE;
        seen = own_keys - (end - first) + 1;
    }
};

// The tiled kernels for D columns, defined by the including file: forward, and the gradients of
// queries and of keys. `bounds` are those of the first two.
#define TILED(name, T, suffix, D, bounds)                                                          \
    BOUND_KERNEL(name##D##_##suffix, THREADS, bounds, const T *qkv, const u32 *tiles,              \
           const u32 *starts, const u64 *caches, u32 layer, const T *shared_block, u32 shared_len, \
           T *out, float *lse, u32 queries, u32 keys, u32 dim, float scale) {                      \
        attention<T, D>(qkv, tiles, starts, caches, layer, shared_block, shared_len, out, lse,     \
                        Heads{queries, keys, dim, scale});                                         \
    }                                                                                              \
    BOUND_KERNEL(name##_queries##D##_##suffix, THREADS, bounds, const T *qkv, const T *d_out,      \
           const float *lse, const float *delta, const u32 *tiles, const u32 *starts,              \
           const T *shared_block, u32 shared_len, T *d_qkv, u32 queries, u32 keys, u32 dim,        \
           float scale) {                                                                          \
        attention_queries<T, D>(qkv, d_out, lse, delta, tiles, starts, shared_block, shared_len,   \
                                d_qkv, Heads{queries, keys, dim, scale});                          \
    }                                                                                              \
    KERNEL(name##_keys##D##_##suffix, THREADS, const T *qkv, const T *d_out, const float *lse,     \
           const float *delta, const u32 *tiles, const u32 *starts, T *d_qkv, u32 queries,         \
           u32 keys, u32 dim, float scale) {                                                       \
        attention_keys<T, D>(qkv, d_out, lse, delta, tiles, starts, d_qkv,                         \
                             Heads{queries, keys, dim, scale});                                    \
    }
