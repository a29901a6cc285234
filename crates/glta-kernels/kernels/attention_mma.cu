// Causal attention on the tensor cores, as in attention.cu, for 16-bit activations and heads of a
// multiple of eight columns. A block has 64 rows, 16 per warp: queries, or keys in the gradient of
// the keys. It reads the other side in tiles. Probabilities and gradients of scores are rounded to
// the type of activations before they are multiplied; the values that they are computed from are
// f32.
#include "attention.cuh"
#include "matrix.cuh"

namespace tensor_cores {
// Rows that the backward pass reads at a time. Two tiles of them and two tiles of TILE rows take 48
// KB, which every device has without an attribute.
template <int D> constexpr u32 STEP = D <= 64 ? 64 : 32;
constexpr float LOG2_E = 1.44269504f;

// A range of keys and values of one head. The block's query `row` attends to those before
// `limit(row)`, which may be negative.
template <typename T> struct KeyTile {
    const T *keys, *values;
    u32 stride, rows;
    int seen;
    bool causal;
    INLINE int limit(u32 row) const { return causal ? seen + int(row) : seen; }
};

// All keys that a block's queries attend to, in tiles: first the shared keys, then their own.
template <typename T, u32 ROWS> struct KeyTiles {
    Keys<T> shared, own;
    u32 seen, before, count;

    INLINE KeyTiles(Keys<T> shared, Keys<T> own, const Queries<TILE> &q)
        : shared(shared), own(own), seen(q.seen), before((shared.len + ROWS - 1) / ROWS) {
        count = before + (q.seen + q.rows - 1 + ROWS - 1) / ROWS;
    }
    INLINE KeyTile<T> operator[](u32 i) const {
        const bool causal = i >= before;
        const Keys<T> source = causal ? own : shared;
        const u32 from = (causal ? i - before : i) * ROWS, left = source.len - from;
        const u64 at = u64(from) * source.stride;
        return {source.keys + at,
                source.values + at,
                source.stride,
                left < ROWS ? left : ROWS,
                int(causal ? seen : source.len) - int(from),
                causal};
    }
};

template <typename T, int D>
INLINE void attention(const T *qkv, const u32 *tiles, const u32 *starts, const u64 *caches,
                      u32 layer, const T *shared_block, u32 shared_len, T *out, float *lse,
                      Heads heads) {
    const u32 key_head = blockIdx.y / (heads.queries / heads.keys);
    const Keys<T> own = own_keys(qkv, starts, caches, layer, tiles[2 * blockIdx.x], key_head, heads);
    const Queries<TILE> q(tiles, starts, own.len);
    const KeyTiles<T, TILE> key_tiles(shared_keys(shared_block, shared_len, key_head, heads), own,
                                      q);
    T *query_tile = shared_memory<T>();
    T *key_tile = query_tile + TILE * D;
    T *value_tile = key_tile + TILE * D;
    load_tile<T, D, TILE>(query_tile, qkv + u64(q.first) * heads.stride() + q.head * heads.dim,
                          heads.stride(), q.rows, heads.dim);
    KeyTile<T> tile = key_tiles[0];
    load_tile<T, D, TILE>(key_tile, tile.keys, tile.stride, tile.rows, heads.dim);
    const float scale = heads.scale * LOG2_E; // of exponents of two
    // For the lane's two rows; the denominators cover only the lane's own columns.
    float max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    Sums<D> sums = {};
    for (u32 i = 0; i < key_tiles.count; i++) {
        tile = key_tiles[i];
        // Values are copied while scores are computed, and the next keys while values are weighted.
        await_tiles();
        load_tile<T, D, TILE>(value_tile, tile.values, tile.stride, tile.rows, heads.dim);
        Sums<TILE> s = {};
        multiply_rows<T, D, TILE>(s, query_tile + warp_row() * D, key_tile);
        if (tile.limit(warp_row()) < int(TILE)) {
#pragma unroll
            for (u32 n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    const bool sees = int(sum_column(n, e)) < tile.limit(sum_row(e));
                    s[n][e] = sees ? s[n][e] : -INFINITY;
                }
            }
        }
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float top = max[half];
#pragma unroll
            for (u32 n = 0; n < TILE / 8; n++) {
                top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            }
            // Finite, because every query attends to the first key of the first tile.
            top = row_max<4>(top);
            const float before = power_of_two((max[half] - top) * scale);
            max[half] = top;
            float added = 0.0f;
#pragma unroll
            for (u32 n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (u32 e = 2 * half; e < 2 * half + 2; e++) {
                    s[n][e] = power_of_two(fmaf(s[n][e], scale, -top * scale));
                    added += s[n][e];
                }
            }
            sum[half] = fmaf(sum[half], before, added);
#pragma unroll
            for (u32 n = 0; n < D / 8; n++) {
                sums[n][2 * half] *= before;
                sums[n][2 * half + 1] *= before;
            }
        }
        await_tiles();
        if (i + 1 < key_tiles.count) {
            const KeyTile<T> next = key_tiles[i + 1];
            load_tile<T, D, TILE>(key_tile, next.keys, next.stride, next.rows, heads.dim);
        }
        weigh_rows<T, D, TILE>(sums, s, value_tile);
    }
    float inverse[2];
    for (u32 half = 0; half < 2; half++) {
        const float total = row_sum<4>(sum[half]);
        const u32 row = sum_row(2 * half);
        inverse[half] = 1.0f / total;
        if (lse != nullptr && row < q.rows && threadIdx.x % 4 == 0) {
            lse[u64(q.first + row) * heads.queries + q.head] =
                max[half] * heads.scale + logf(total);
        }
    }
    const u32 width = heads.queries * heads.dim;
    write_sums<T, D>(sums, inverse, out + u64(q.first) * width + q.head * heads.dim, width, q.rows,
                     heads.dim);
}

// Writes the gradient of the queries to d_qkv: (tokens, stride).
template <typename T, int D>
INLINE void attention_queries(const T *qkv, const T *d_out, const float *lse, const float *delta,
                              const u32 *tiles, const u32 *starts, const T *shared_block,
                              u32 shared_len, T *d_qkv, Heads heads) {
    const u32 key_head = blockIdx.y / (heads.queries / heads.keys);
    const Keys<T> own =
        own_keys<T>(qkv, starts, nullptr, 0, tiles[2 * blockIdx.x], key_head, heads);
    const Queries<TILE> q(tiles, starts, own.len);
    const KeyTiles<T, STEP<D>> key_tiles(shared_keys(shared_block, shared_len, key_head, heads),
                                         own, q);
    const u32 width = heads.queries * heads.dim;
    T *query_tile = shared_memory<T>();
    T *grad_tile = query_tile + TILE * D;
    T *key_tile = grad_tile + TILE * D;
    T *value_tile = key_tile + STEP<D> * D;
    load_tile<T, D, TILE>(query_tile, qkv + u64(q.first) * heads.stride() + q.head * heads.dim,
                          heads.stride(), q.rows, heads.dim);
    load_tile<T, D, TILE>(grad_tile, d_out + u64(q.first) * width + q.head * heads.dim, width,
                          q.rows, heads.dim);
    float row_lse[2], row_delta[2];
    for (u32 half = 0; half < 2; half++) {
        const u32 row = sum_row(2 * half) < q.rows ? sum_row(2 * half) : 0;
        row_lse[half] = lse[u64(q.first + row) * heads.queries + q.head] * LOG2_E;
        row_delta[half] = delta[u64(q.first + row) * heads.queries + q.head];
    }
    Sums<D> sums = {};
    for (u32 i = 0; i < key_tiles.count; i++) {
        const KeyTile<T> tile = key_tiles[i];
        __syncthreads();
        load_tile<T, D, STEP<D>>(key_tile, tile.keys, tile.stride, tile.rows, heads.dim);
        load_tile<T, D, STEP<D>>(value_tile, tile.values, tile.stride, tile.rows, heads.dim);
        await_tiles();
        if (tile.limit(warp_row() + WARP_ROWS - 1) <= 0) {
            continue; // None of the warp's queries sees any.
        }
        Sums<STEP<D>> s = {}, d_weights = {};
        multiply_rows<T, D, STEP<D>>(s, query_tile + warp_row() * D, key_tile);
        multiply_rows<T, D, STEP<D>>(d_weights, grad_tile + warp_row() * D, value_tile);
#pragma unroll
        for (u32 n = 0; n < STEP<D> / 8; n++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                const bool sees = int(sum_column(n, e)) < tile.limit(sum_row(e));
                const float w =
                    power_of_two(fmaf(s[n][e], heads.scale * LOG2_E, -row_lse[e / 2]));
                s[n][e] = sees ? w * (d_weights[n][e] - row_delta[e / 2]) : 0.0f;
            }
        }
        weigh_rows<T, D, STEP<D>>(sums, s, key_tile);
    }
    const float factor[2] = {heads.scale, heads.scale};
    write_sums<T, D>(sums, factor, d_qkv + u64(q.first) * heads.stride() + q.head * heads.dim,
                     heads.stride(), q.rows, heads.dim);
}

// Writes the gradient of the sequences' own keys and values to d_qkv: (tokens, stride). One block
// per tile of keys and key head sums over all queries that attend to them.
template <typename T, int D>
INLINE void attention_keys(const T *qkv, const T *d_out, const float *lse, const float *delta,
                           const u32 *tiles, const u32 *starts, T *d_qkv, Heads heads) {
    const u32 sequence = tiles[2 * blockIdx.x], first = tiles[2 * blockIdx.x + 1];
    const u32 end = starts[sequence + 1], group = heads.queries / heads.keys;
    const u32 head = blockIdx.y, stride = heads.stride(), width = heads.queries * heads.dim;
    const u32 rows = end - first < TILE ? end - first : TILE;
    const u32 key_at = (heads.queries + head) * heads.dim;
    const u32 value_at = key_at + heads.keys * heads.dim;
    T *key_tile = shared_memory<T>();
    T *value_tile = key_tile + TILE * D;
    T *query_tile = value_tile + TILE * D;
    T *grad_tile = query_tile + STEP<D> * D;
    load_tile<T, D, TILE>(key_tile, qkv + u64(first) * stride + key_at, stride, rows, heads.dim);
    load_tile<T, D, TILE>(value_tile, qkv + u64(first) * stride + value_at, stride, rows,
                          heads.dim);
    Sums<D> d_keys = {}, d_values = {};
    for (u32 query_head = head * group; query_head < (head + 1) * group; query_head++) {
        for (u32 from = first; from < end; from += STEP<D>) {
            const u32 queries = end - from < STEP<D> ? end - from : STEP<D>;
            __syncthreads();
            load_tile<T, D, STEP<D>>(query_tile,
                                     qkv + u64(from) * stride + query_head * heads.dim, stride,
                                     queries, heads.dim);
            load_tile<T, D, STEP<D>>(grad_tile,
                                     d_out + u64(from) * width + query_head * heads.dim, width,
                                     queries, heads.dim);
            float query_lse[STEP<D> / 8][2], query_delta[STEP<D> / 8][2];
#pragma unroll
            for (u32 n = 0; n < STEP<D> / 8; n++) {
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    const u32 query = from + sum_column(n, e);
                    const u64 at = u64(query < end ? query : first) * heads.queries + query_head;
                    query_lse[n][e] = lse[at] * LOG2_E, query_delta[n][e] = delta[at];
                }
            }
            await_tiles();
            if (from + STEP<D> <= first + warp_row()) {
                continue; // None of these queries sees any of the warp's keys.
            }
            Sums<STEP<D>> w = {}, d_scores = {}; // [key][query]
            multiply_rows<T, D, STEP<D>>(w, key_tile + warp_row() * D, query_tile);
            multiply_rows<T, D, STEP<D>>(d_scores, value_tile + warp_row() * D, grad_tile);
#pragma unroll
            for (u32 n = 0; n < STEP<D> / 8; n++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    const u32 query = from + sum_column(n, e);
                    const bool seen = query < end && first + sum_row(e) <= query;
                    const float exponent =
                        fmaf(w[n][e], heads.scale * LOG2_E, -query_lse[n][e % 2]);
                    w[n][e] = seen ? power_of_two(exponent) : 0.0f;
                    d_scores[n][e] = w[n][e] * (d_scores[n][e] - query_delta[n][e % 2]);
                }
            }
            weigh_rows<T, D, STEP<D>>(d_values, w, grad_tile);
            weigh_rows<T, D, STEP<D>>(d_keys, d_scores, query_tile);
        }
    }
    const float scale[2] = {heads.scale, heads.scale}, one[2] = {1.0f, 1.0f};
    T *to = d_qkv + u64(first) * stride;
    write_sums<T, D>(d_keys, scale, to + key_at, stride, rows, heads.dim);
    write_sums<T, D>(d_values, one, to + value_at, stride, rows, heads.dim);
}

// The number of blocks that the shared memory of an A100 allows.
#define BOUNDS (THREADS, 3)
TILED(attention_mma, f16, f16, 64, BOUNDS)
TILED(attention_mma, f16, f16, 128, BOUNDS)
TILED(attention_mma, bf16, bf16, 64, BOUNDS)
TILED(attention_mma, bf16, bf16, 128, BOUNDS)
} // namespace tensor_cores
