// Causal attention of packed sequences on the f32 units. The online softmax never stores the matrix
// of scores. This file also has the kernels that process one token per block.
#include "attention.cuh"

constexpr u32 TILE = 32;     // queries and keys of a tile
constexpr u32 THREADS = 128; // 16 rows by 8 columns of threads
constexpr u32 ROWS = 2;      // rows of a tile per thread, 16 apart
constexpr u32 COLUMNS = 4;   // columns of a score tile per thread, 8 apart
constexpr u32 SCORES = TILE + 4; // stride of a tile of scores in shared memory

// A tile in shared memory, (TILE, D + 4); missing rows and columns are zero.
template <typename T, int D>
INLINE void load_tile(float *to, const T *from, u32 stride, u32 rows, u32 dim) {
    for (u32 i = threadIdx.x; i < TILE * (D / 4); i += THREADS) {
        const u32 row = i / (D / 4), column = i % (D / 4) * 4;
        float v[4] = {};
        if (row < rows && column < dim) {
            load4(from + u64(row) * stride + column, v);
        }
        store4(to + row * (D + 4) + column, v);
    }
}

INLINE u32 tile_row(u32 i) { return threadIdx.x / 8 + 16 * i; }
INLINE u32 tile_column(u32 j) { return threadIdx.x % 8 + 8 * j; }

// Products of this thread's rows of `a` with its columns, which are rows of `b`.
template <int D>
INLINE void scores(const float *a, const float *b, float (&to)[ROWS][COLUMNS]) {
    for (u32 i = 0; i < ROWS; i++) {
        for (u32 j = 0; j < COLUMNS; j++) {
            to[i][j] = 0.0f;
        }
    }
#pragma unroll 4
    for (u32 k = 0; k < D; k += 4) {
        float x[ROWS][4], y[COLUMNS][4];
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) {
            load4(a + tile_row(i) * (D + 4) + k, x[i]);
        }
#pragma unroll
        for (u32 j = 0; j < COLUMNS; j++) {
            load4(b + tile_column(j) * (D + 4) + k, y[j]);
        }
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
            for (u32 j = 0; j < COLUMNS; j++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    to[i][j] = fmaf(x[i][e], y[j][e], to[i][j]);
                }
            }
        }
    }
}

// Four adjacent columns in each of D / 32 runs of 32.
template <int D> using Sums = float[ROWS][D / 32][4];

template <int D> INLINE u32 sum_column(u32 run) { return run * 32 + threadIdx.x % 8 * 4; }

// sums += weights (TILE, SCORES) x rows (TILE, D + 4)
template <int D> INLINE void weigh(const float *weights, const float *rows, Sums<D> &sums) {
#pragma unroll 4
    for (u32 k = 0; k < TILE; k++) {
        float w[ROWS];
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) {
            w[i] = weights[tile_row(i) * SCORES + k];
        }
#pragma unroll
        for (u32 run = 0; run < D / 32; run++) {
            float v[4];
            load4(rows + k * (D + 4) + sum_column<D>(run), v);
#pragma unroll
            for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    sums[i][run][e] = fmaf(w[i], v[e], sums[i][run][e]);
                }
            }
        }
    }
}

template <typename T, int D>
INLINE void write_sums(const Sums<D> &sums, const float (&factor)[ROWS], T *to, u32 stride,
                       u32 rows, u32 dim) {
    for (u32 i = 0; i < ROWS; i++) {
        for (u32 run = 0; run < D / 32; run++) {
            const u32 row = tile_row(i), column = sum_column<D>(run);
            if (row < rows && column < dim) {
                float v[4];
                for (u32 e = 0; e < 4; e++) {
                    v[e] = sums[i][run][e] * factor[i];
                }
                store4(to + u64(row) * stride + column, v);
            }
        }
    }
}

// out: (tokens, queries * dim); lse: (tokens, queries), the logarithm of each softmax denominator,
// or null.
template <typename T, int D>
INLINE void attention(const T *qkv, const u32 *tiles, const u32 *starts, const u64 *caches,
                      u32 layer, const T *shared_block, u32 shared_len, T *out, float *lse,
                      Heads heads) {
    const u32 sequence = tiles[2 * blockIdx.x], group = heads.queries / heads.keys;
    const Keys<T> sources[2] = {
        shared_keys(shared_block, shared_len, blockIdx.y / group, heads),
        own_keys(qkv, starts, caches, layer, sequence, blockIdx.y / group, heads)};
    const Queries<TILE> q(tiles, starts, sources[1].len);
    float *query_tile = shared_memory<float>();
    float *key_tile = query_tile + TILE * (D + 4);
    float *weight_tile = key_tile + TILE * (D + 4);
    load_tile<T, D>(query_tile, qkv + u64(q.first) * heads.stride() + q.head * heads.dim,
                    heads.stride(), q.rows, heads.dim);
    float max[ROWS], sum[ROWS];
    Sums<D> sums = {};
    for (u32 i = 0; i < ROWS; i++) {
        max[i] = -INFINITY, sum[i] = 0.0f;
    }
    for (u32 source = 0; source < 2; source++) {
        const Keys<T> keys = sources[source];
        const u32 seen = source == 0 ? keys.len : q.seen + q.rows - 1;
        for (u32 from = 0; from < seen; from += TILE) {
            const u32 rows = keys.len - from < TILE ? keys.len - from : TILE;
            __syncthreads();
            load_tile<T, D>(key_tile, keys.keys + u64(from) * keys.stride, keys.stride, rows,
                            heads.dim);
            __syncthreads();
            float s[ROWS][COLUMNS];
            scores<D>(query_tile, key_tile, s);
            for (u32 i = 0; i < ROWS; i++) {
                const u32 row = tile_row(i);
                const u32 end = source == 0 ? keys.len : q.seen + row;
                float top = -INFINITY;
                for (u32 j = 0; j < COLUMNS; j++) {
                    const u32 key = from + tile_column(j);
                    s[i][j] = key < end && key < keys.len ? s[i][j] * heads.scale : -INFINITY;
                    top = fmaxf(top, s[i][j]);
                }
                top = fmaxf(max[i], row_max<8>(top));
                // A row without visible keys has no maximum to subtract.
                const float shift = top == -INFINITY ? 0.0f : top;
                const float before = expf(max[i] - shift);
                float added = 0.0f;
                for (u32 j = 0; j < COLUMNS; j++) {
                    const float w = expf(s[i][j] - shift);
                    weight_tile[row * SCORES + tile_column(j)] = w;
                    added += w;
                }
                max[i] = top;
                sum[i] = fmaf(sum[i], before, row_sum<8>(added));
                for (u32 run = 0; run < D / 32; run++) {
                    for (u32 e = 0; e < 4; e++) {
                        sums[i][run][e] *= before;
                    }
                }
            }
            __syncthreads();
            load_tile<T, D>(key_tile, keys.values + u64(from) * keys.stride, keys.stride, rows,
                            heads.dim);
            __syncthreads();
            weigh<D>(weight_tile, key_tile, sums);
        }
    }
    const u32 width = heads.queries * heads.dim;
    float inverse[ROWS];
    for (u32 i = 0; i < ROWS; i++) {
        inverse[i] = 1.0f / sum[i];
        const u32 row = tile_row(i);
        if (lse != nullptr && row < q.rows && threadIdx.x % 8 == 0) {
            lse[u64(q.first + row) * heads.queries + q.head] = max[i] + logf(sum[i]);
        }
    }
    write_sums<T, D>(sums, inverse, out + u64(q.first) * width + q.head * heads.dim, width, q.rows,
                     heads.dim);
}

// delta = sum(d_out * out) for every token and head, (tokens, queries); one block per token.
template <typename T>
INLINE void attention_delta(const T *out, const T *d_out, float *delta, u32 queries, u32 dim) {
    for (u32 head = threadIdx.x / WARP; head < queries; head += blockDim.x / WARP) {
        const u64 at = (u64(blockIdx.x) * queries + head) * dim;
        float sum = 0.0f;
        for (u32 i = threadIdx.x % WARP; i < dim; i += WARP) {
            sum = fmaf(to_float(out[at + i]), to_float(d_out[at + i]), sum);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) {
            delta[u64(blockIdx.x) * queries + head] = sum;
        }
    }
}

// Writes the gradient of the queries to d_qkv: (tokens, stride).
template <typename T, int D>
INLINE void attention_queries(const T *qkv, const T *d_out, const float *lse, const float *delta,
                              const u32 *tiles, const u32 *starts, const T *shared_block,
                              u32 shared_len, T *d_qkv, Heads heads) {
    const u32 sequence = tiles[2 * blockIdx.x], group = heads.queries / heads.keys;
    const Keys<T> sources[2] = {
        shared_keys(shared_block, shared_len, blockIdx.y / group, heads),
        own_keys(qkv, starts, nullptr, 0, sequence, blockIdx.y / group, heads)};
    const Queries<TILE> q(tiles, starts, sources[1].len);
    const u32 width = heads.queries * heads.dim;
    float *query_tile = shared_memory<float>();
    float *grad_tile = query_tile + TILE * (D + 4);
    float *key_tile = grad_tile + TILE * (D + 4);
    float *value_tile = key_tile + TILE * (D + 4);
    float *weight_tile = value_tile + TILE * (D + 4);
    load_tile<T, D>(query_tile, qkv + u64(q.first) * heads.stride() + q.head * heads.dim,
                    heads.stride(), q.rows, heads.dim);
    load_tile<T, D>(grad_tile, d_out + u64(q.first) * width + q.head * heads.dim, width, q.rows,
                    heads.dim);
    float row_lse[ROWS], row_delta[ROWS];
    for (u32 i = 0; i < ROWS; i++) {
        const u32 row = tile_row(i) < q.rows ? tile_row(i) : 0;
        row_lse[i] = lse[u64(q.first + row) * heads.queries + q.head];
        row_delta[i] = delta[u64(q.first + row) * heads.queries + q.head];
    }
    Sums<D> sums = {};
    for (u32 source = 0; source < 2; source++) {
        const Keys<T> keys = sources[source];
        const u32 seen = source == 0 ? keys.len : q.seen + q.rows - 1;
        for (u32 from = 0; from < seen; from += TILE) {
            const u32 rows = keys.len - from < TILE ? keys.len - from : TILE;
            __syncthreads();
            load_tile<T, D>(key_tile, keys.keys + u64(from) * keys.stride, keys.stride, rows,
                            heads.dim);
            load_tile<T, D>(value_tile, keys.values + u64(from) * keys.stride, keys.stride, rows,
                            heads.dim);
            __syncthreads();
            float s[ROWS][COLUMNS], d_weights[ROWS][COLUMNS];
            scores<D>(query_tile, key_tile, s);
            scores<D>(grad_tile, value_tile, d_weights);
            for (u32 i = 0; i < ROWS; i++) {
                const u32 row = tile_row(i);
                const u32 end = source == 0 ? keys.len : q.seen + row;
                for (u32 j = 0; j < COLUMNS; j++) {
                    const u32 key = from + tile_column(j);
                    const bool sees = row < q.rows && key < end && key < keys.len;
                    const float w = sees ? expf(s[i][j] * heads.scale - row_lse[i]) : 0.0f;
                    weight_tile[row * SCORES + tile_column(j)] =
                        w * (d_weights[i][j] - row_delta[i]);
                }
            }
            __syncthreads();
            weigh<D>(weight_tile, key_tile, sums);
        }
    }
    const float factor[ROWS] = {heads.scale, heads.scale};
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
    const u32 key_at = (heads.queries + head) * heads.dim, value_at = key_at + heads.keys * heads.dim;
    float *key_tile = shared_memory<float>();
    float *value_tile = key_tile + TILE * (D + 4);
    float *query_tile = value_tile + TILE * (D + 4);
    float *grad_tile = query_tile + TILE * (D + 4);
    float *weight_tile = grad_tile + TILE * (D + 4); // [key][query]
    float *d_score_tile = weight_tile + TILE * SCORES;
    load_tile<T, D>(key_tile, qkv + u64(first) * stride + key_at, stride, rows, heads.dim);
    load_tile<T, D>(value_tile, qkv + u64(first) * stride + value_at, stride, rows, heads.dim);
    Sums<D> d_keys = {}, d_values = {};
    for (u32 query_head = head * group; query_head < (head + 1) * group; query_head++) {
        for (u32 from = first; from < end; from += TILE) {
            const u32 queries = end - from < TILE ? end - from : TILE;
            __syncthreads();
            load_tile<T, D>(query_tile, qkv + u64(from) * stride + query_head * heads.dim, stride,
                            queries, heads.dim);
            load_tile<T, D>(grad_tile, d_out + u64(from) * width + query_head * heads.dim, width,
                            queries, heads.dim);
            __syncthreads();
            float s[ROWS][COLUMNS], d_weights[ROWS][COLUMNS];
            scores<D>(key_tile, query_tile, s);
            scores<D>(value_tile, grad_tile, d_weights);
            for (u32 j = 0; j < COLUMNS; j++) {
                const u32 column = tile_column(j), query = from + column;
                const u64 at = u64(query < end ? query : first) * heads.queries + query_head;
                const float query_lse = lse[at], query_delta = delta[at];
                for (u32 i = 0; i < ROWS; i++) {
                    const u32 row = tile_row(i);
                    const bool seen = row < rows && query < end && first + row <= query;
                    const float w = seen ? expf(s[i][j] * heads.scale - query_lse) : 0.0f;
                    weight_tile[row * SCORES + column] = w;
                    d_score_tile[row * SCORES + column] = w * (d_weights[i][j] - query_delta);
                }
            }
            __syncthreads();
            weigh<D>(weight_tile, grad_tile, d_values);
            weigh<D>(d_score_tile, query_tile, d_keys);
        }
    }
    const float scale[ROWS] = {heads.scale, heads.scale}, one[ROWS] = {1.0f, 1.0f};
    T *to = d_qkv + u64(first) * stride;
    write_sums<T, D>(d_keys, scale, to + key_at, stride, rows, heads.dim);
    write_sums<T, D>(d_values, one, to + value_at, stride, rows, heads.dim);
}

constexpr u32 CHUNKS = 4;  // chunks of four columns per lane: heads up to 128
constexpr u32 SHARE = 8;   // lanes that share a key
constexpr u32 DECODE_THREADS = 256;
constexpr u32 TEAMS = DECODE_THREADS / SHARE;

// Value of a column of a head after the rotation by an angle per pair (i, i + dim / 2).
template <typename T>
INLINE float rotated(const T *x, const float *cos, const float *sin, u32 column, u32 dim) {
    const u32 half = dim / 2, pair = column % half;
    const float x0 = to_float(x[pair]), x1 = to_float(x[pair + half]), c = cos[pair], s = sin[pair];
    return column < half ? x0 * c - x1 * s : x1 * c + x0 * s;
}

// Rotates the token of each sequence, appends its keys and values to the cache, and decodes it over
// the shared keys and the cache. `qkv` is the projection before the rotation. One block per
// sequence and `piece` keys, and per query head. Teams of eight lanes take turns over the keys;
// their softmaxes are combined at the end. The last block to finish a head combines the `pieces`,
// in order: `parts` has (maximum, denominator, dim sums) of each, `counters` a zero per sequence
// and head.
template <typename T>
INLINE void attention_decode(const T *qkv, const u32 *positions, const float *cos, const float *sin,
                             const u32 *starts, const u64 *caches, u32 layer,
                             const T *shared_block, u32 shared_len, T *out, float *parts,
                             u32 *counters, u32 pieces, u32 piece_keys, Heads heads) {
    const u32 sequence = blockIdx.x / pieces, piece = blockIdx.x % pieces;
    const u32 head = blockIdx.y, group = heads.queries / heads.keys, dim = heads.dim;
    const Keys<T> before = shared_keys(shared_block, shared_len, head / group, heads);
    const Keys<T> own = own_keys(qkv, starts, caches, layer, sequence, head / group, heads);
    const u32 team = threadIdx.x / SHARE, part = threadIdx.x % SHARE, token = starts[sequence];
    const T *row = qkv + u64(token) * heads.stride(), *query = row + head * dim;
    const T *new_key = row + (heads.queries + head / group) * dim;
    const T *new_value = new_key + heads.keys * dim;
    cos += u64(positions[token]) * (dim / 2), sin += u64(positions[token]) * (dim / 2);
    const u32 total = before.len + own.len, first = piece * piece_keys;
    const u32 end = total - first < piece_keys ? total : first + piece_keys;
    // [team]: maximum, denominator; [team][dim]; the rotated query and key
    float *tops = shared_memory<float>(), *totals = tops + TEAMS, *rows = totals + TEAMS;
    T *fresh_query = reinterpret_cast<T *>(rows + TEAMS * dim), *fresh_key = fresh_query + dim;
    const bool appends = head % group == 0 && first < total && end == total;
    const u64 last = u64(own.len - 1) * own.stride;
    for (u32 i = threadIdx.x; i < dim; i += DECODE_THREADS) {
        fresh_query[i] = from_float<T>(rotated(query, cos, sin, i, dim));
        fresh_key[i] = from_float<T>(rotated(new_key, cos, sin, i, dim));
        if (appends) {
            const_cast<T *>(own.keys)[last + i] = fresh_key[i];
            const_cast<T *>(own.values)[last + i] = new_value[i];
        }
    }
    __syncthreads();
    float q[CHUNKS][4] = {}, sums[CHUNKS][4] = {};
    for (u32 c = 0; c < CHUNKS; c++) {
        const u32 column = (c * SHARE + part) * 4;
        if (column < dim) {
            load4(fresh_query + column, q[c]);
        }
    }
    float max = -INFINITY, sum = 0.0f;
    // Every lane runs every round, because the lanes of a warp exchange values.
    for (u32 round = first; first < total && round < end; round += TEAMS) {
        const u32 key = round + team;
        const bool exists = key < end, is_new = key + 1 == total;
        const Keys<T> &source = key < before.len ? before : own;
        const u64 at = u64(key < before.len ? key : key - before.len) * source.stride;
        const T *keys = is_new ? fresh_key : source.keys + at;
        const T *values = is_new ? new_value : source.values + at;
        float s = 0.0f, value[CHUNKS][4] = {};
#pragma unroll
        for (u32 c = 0; c < CHUNKS; c++) {
            const u32 column = (c * SHARE + part) * 4;
            if (exists && column < dim) {
                float k[4];
                load4(keys + column, k);
                load4(values + column, value[c]);
                for (u32 e = 0; e < 4; e++) {
                    s = fmaf(q[c][e], k[e], s);
                }
            }
        }
        s = row_sum<SHARE>(s) * heads.scale;
        if (!exists) {
            continue;
        }
        const float top = fmaxf(max, s), old = expf(max - top), w = expf(s - top);
        max = top;
        sum = fmaf(sum, old, w);
#pragma unroll
        for (u32 c = 0; c < CHUNKS; c++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                sums[c][e] = fmaf(sums[c][e], old, w * value[c][e]);
            }
        }
    }
    if (part == 0) {
        tops[team] = max, totals[team] = sum;
    }
    for (u32 c = 0; c < CHUNKS; c++) {
        const u32 column = (c * SHARE + part) * 4;
        if (column < dim) {
            store4(rows + team * dim + column, sums[c]);
        }
    }
    __syncthreads();
    const u64 sequence_head = u64(sequence) * heads.queries + head;
    out += sequence_head * dim, parts += sequence_head * pieces * (dim + 2);
    // Of a piece without keys nothing is used.
    if (first < total) {
        float top = -INFINITY, denominator = 0.0f;
        for (u32 t = 0; t < TEAMS; t++) {
            top = fmaxf(top, tops[t]);
        }
        for (u32 t = 0; t < TEAMS; t++) {
            denominator += totals[t] * expf(tops[t] - top);
        }
        float *to = parts + piece * (dim + 2);
        if (pieces > 1 && threadIdx.x == 0) {
            to[0] = top, to[1] = denominator;
        }
        for (u32 i = threadIdx.x; i < dim; i += DECODE_THREADS) {
            float v = 0.0f;
            for (u32 t = 0; t < TEAMS; t++) {
                v = fmaf(rows[t * dim + i], expf(tops[t] - top), v);
            }
            if (pieces > 1) {
                to[2 + i] = v;
            } else {
                out[i] = from_float<T>(v / denominator);
            }
        }
    }
    if (pieces == 1 || !finishes_last(counters + sequence_head, pieces)) {
        return;
    }
    const u32 used = (total + piece_keys - 1) / piece_keys;
    float top = -INFINITY, denominator = 0.0f;
    for (u32 p = 0; p < used; p++) {
        top = fmaxf(top, __ldcg(parts + p * (dim + 2)));
    }
    for (u32 p = 0; p < used; p++) {
        const float *from = parts + p * (dim + 2);
        denominator += __ldcg(from + 1) * expf(__ldcg(from) - top);
    }
    for (u32 i = threadIdx.x; i < dim; i += DECODE_THREADS) {
        float v = 0.0f;
        for (u32 p = 0; p < used; p++) {
            const float *from = parts + p * (dim + 2);
            v = fmaf(__ldcg(from + 2 + i), expf(__ldcg(from) - top), v);
        }
        out[i] = from_float<T>(v / denominator);
    }
}

// Writes keys and values of every token of `qkv` to the end of its sequence's cache; `sequences`:
// (tokens,). One block per token.
template <typename T>
INLINE void append_keys(const T *qkv, const u32 *sequences, const u32 *starts, const u64 *caches,
                        u32 layer, Heads heads) {
    const u32 token = blockIdx.x, sequence = sequences[token];
    const u64 sizes = caches[2 * sequence + 1];
    const u32 width = 2 * heads.keys * heads.dim;
    const u32 at = u32(sizes) - (starts[sequence + 1] - token);
    T *to = reinterpret_cast<T *>(caches[2 * sequence]) +
            (u64(layer) * u32(sizes >> 32) + at) * width;
    const T *from = qkv + u64(token) * heads.stride() + heads.queries * heads.dim;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        to[i] = from[i];
    }
}

#define ATTENTION(T, suffix)                                                                       \
    TILED(attention, T, suffix, 64, (THREADS))                                                     \
    TILED(attention, T, suffix, 128, (THREADS))                                                    \
    KERNEL(attention_delta_##suffix, 256, const T *out, const T *d_out, float *delta,              \
           u32 queries, u32 dim) {                                                                 \
        attention_delta(out, d_out, delta, queries, dim);                                          \
    }                                                                                              \
    KERNEL(attention_decode_##suffix, DECODE_THREADS, const T *qkv, const u32 *positions,          \
           const float *cos, const float *sin, const u32 *starts, const u64 *caches, u32 layer,    \
           const T *shared_block, u32 shared_len, T *out, float *parts, u32 *counters, u32 pieces, \
           u32 piece_keys, u32 queries, u32 keys, u32 dim, float scale) {                          \
        attention_decode(qkv, positions, cos, sin, starts, caches, layer, shared_block,            \
                         shared_len, out, parts, counters, pieces, piece_keys,                     \
                         Heads{queries, keys, dim, scale});                                        \
    }                                                                                              \
    KERNEL(append_keys_##suffix, 256, const T *qkv, const u32 *sequences, const u32 *starts,       \
           const u64 *caches, u32 layer, u32 queries, u32 keys, u32 dim) {                         \
        append_keys(qkv, sequences, starts, caches, layer, Heads{queries, keys, dim, 0.0f});       \
    }
FOR_EACH_TYPE(ATTENTION)
