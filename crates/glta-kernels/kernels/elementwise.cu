// Norms, rotary embedding, activations, and moves of rows and columns.
#include "common.cuh"

constexpr u32 FOUR = 4;

// Up to four adjacent values of a row. Those of a row whose width is a multiple of four are aligned
// and read at once; `count` is the number that exists in another row, and others are zero.
template <typename T> INLINE void load(const T *from, u32 width, u32 count, float (&to)[FOUR]) {
    if (width % FOUR == 0) {
        load4(from, to);
        return;
    }
    for (u32 e = 0; e < FOUR; e++) {
        to[e] = e < count ? to_float(from[e]) : 0.0f;
    }
}
template <typename T> INLINE void store(T *to, u32 width, u32 count, const float (&from)[FOUR]) {
    if (width % FOUR == 0) {
        store4(to, from);
        return;
    }
    for (u32 e = 0; e < FOUR && e < count; e++) {
        to[e] = from_float<T>(from[e]);
    }
}
// First of this thread's four columns where a block has a part of a row.
INLINE u32 own_columns() { return (blockIdx.y * blockDim.x + threadIdx.x) * FOUR; }

// y = x / rms(x) * w; one block per row. The residual stream x and its gradient are f32; only the
// inputs of linear layers are rounded.
template <typename T>
INLINE void rms_norm(const float *x, const float *w, T *y, u32 width, float eps) {
    x += u64(blockIdx.x) * width, y += u64(blockIdx.x) * width;
    float sum = 0.0f, v[FOUR], weight[FOUR];
    for (u32 i = threadIdx.x * FOUR; i < width; i += blockDim.x * FOUR) {
        load(x + i, width, width - i, v);
        for (u32 e = 0; e < FOUR; e++) {
            sum = fmaf(v[e], v[e], sum);
        }
    }
    const float r = 1.0f / sqrtf(block_sum(sum, shared_memory<float>()) / float(width) + eps);
    for (u32 i = threadIdx.x * FOUR; i < width; i += blockDim.x * FOUR) {
        load(x + i, width, width - i, v);
        load(w + i, width, width - i, weight);
        for (u32 e = 0; e < FOUR; e++) {
            v[e] = weight[e] * (v[e] * r);
        }
        store(y + i, width, width - i, v);
    }
}

// dx = residual + r w dy - x r^3 / n sum(w dy x); a null `residual` means zero.
template <typename T>
INLINE void rms_norm_backward(const float *x, const float *w, const T *dy, const float *residual,
                              float *dx, u32 width, float eps) {
    const u64 row = u64(blockIdx.x) * width;
    float *scratch = shared_memory<float>();
    float squares = 0.0f, products = 0.0f, v[FOUR], weight[FOUR], grad[FOUR];
    for (u32 i = threadIdx.x * FOUR; i < width; i += blockDim.x * FOUR) {
        load(x + row + i, width, width - i, v);
        load(w + i, width, width - i, weight);
        load(dy + row + i, width, width - i, grad);
        for (u32 e = 0; e < FOUR; e++) {
            squares = fmaf(v[e], v[e], squares);
            products = fmaf(weight[e] * grad[e], v[e], products);
        }
    }
    const float r = 1.0f / sqrtf(block_sum(squares, scratch) / float(width) + eps);
    const float common = block_sum(products, scratch + WARP) * r * r * r / float(width);
    for (u32 i = threadIdx.x * FOUR; i < width; i += blockDim.x * FOUR) {
        float before[FOUR] = {};
        load(x + row + i, width, width - i, v);
        load(w + i, width, width - i, weight);
        load(dy + row + i, width, width - i, grad);
        if (residual != nullptr) {
            load(residual + row + i, width, width - i, before);
        }
        for (u32 e = 0; e < FOUR; e++) {
            v[e] = fmaf(v[e], -common, fmaf(weight[e] * grad[e], r, before[e]));
        }
        store(dx + row + i, width, width - i, v);
    }
}

// Rotates the pairs (i, i + dim / 2) of the first `heads` heads of every row in place; sign -1
// rotates backwards. One block per row.
template <typename T>
INLINE void rope(T *x, const u32 *positions, const float *cos, const float *sin, u32 stride,
                 u32 heads, u32 dim, float sign) {
    const u32 half = dim / 2;
    x += u64(blockIdx.x) * stride;
    const u64 at = u64(positions[blockIdx.x]) * half;
    for (u32 j = threadIdx.x * FOUR; half % FOUR == 0 && j < heads * half;
         j += blockDim.x * FOUR) {
        const u32 i = j % half;
        T *a = x + j / half * dim + i, *b = a + half;
        float x0[FOUR], x1[FOUR], c[FOUR], s[FOUR];
        load4(a, x0), load4(b, x1), load4(cos + at + i, c), load4(sin + at + i, s);
        for (u32 e = 0; e < FOUR; e++) {
            s[e] *= sign;
            const float rotated = x0[e] * c[e] - x1[e] * s[e];
            x1[e] = x1[e] * c[e] + x0[e] * s[e];
            x0[e] = rotated;
        }
        store4(a, x0), store4(b, x1);
    }
    if (half % FOUR == 0) {
        return;
    }
    for (u32 j = threadIdx.x; j < heads * half; j += blockDim.x) {
        const u32 i = j % half;
        T *a = x + j / half * dim + i, *b = a + half;
        const float c = cos[at + i], s = sign * sin[at + i];
        const float x0 = to_float(*a), x1 = to_float(*b);
        *a = from_float<T>(x0 * c - x1 * s);
        *b = from_float<T>(x1 * c + x0 * s);
    }
}

// silu(gate) * up of rows (gate, up). A block has a part of a row, as in the kernels below.
template <typename T> INLINE void swiglu(const T *gate_up, T *h, u32 width) {
    const u32 i = own_columns();
    if (i >= width) {
        return;
    }
    gate_up += u64(blockIdx.x) * 2 * width + i;
    float gate[FOUR], up[FOUR];
    load(gate_up, width, width - i, gate);
    load(gate_up + width, width, width - i, up);
    for (u32 e = 0; e < FOUR; e++) {
        up[e] = gate[e] * sigmoid(gate[e]) * up[e];
    }
    store(h + u64(blockIdx.x) * width + i, width, width - i, up);
}

template <typename T>
INLINE void swiglu_backward(const T *gate_up, const T *dh, T *d, u32 width) {
    const u32 i = own_columns();
    if (i >= width) {
        return;
    }
    const u64 at = u64(blockIdx.x) * 2 * width + i;
    float gate[FOUR], up[FOUR], grad[FOUR];
    load(gate_up + at, width, width - i, gate);
    load(gate_up + at + width, width, width - i, up);
    load(dh + u64(blockIdx.x) * width + i, width, width - i, grad);
    for (u32 e = 0; e < FOUR; e++) {
        const float s = sigmoid(gate[e]), silu = gate[e] * s;
        gate[e] = grad[e] * up[e] * fmaf(silu, 1.0f - s, s);
        up[e] = grad[e] * silu;
    }
    store(d + at, width, width - i, gate);
    store(d + at + width, width, width - i, up);
}

// y += bias + other; either may be null.
template <typename T>
INLINE void add(T *y, const float *bias, const T *other, u32 width) {
    const u32 i = own_columns();
    if (i >= width) {
        return;
    }
    const u64 at = u64(blockIdx.x) * width + i;
    float sum[FOUR], more[FOUR];
    load(y + at, width, width - i, sum);
    if (bias != nullptr) {
        load(bias + i, width, width - i, more);
        for (u32 e = 0; e < FOUR; e++) {
            sum[e] += more[e];
        }
    }
    if (other != nullptr) {
        load(other + at, width, width - i, more);
        for (u32 e = 0; e < FOUR; e++) {
            sum[e] += more[e];
        }
    }
    store(y + at, width, width - i, sum);
}

// Row r of y is row index[r] of x, or zero; one block per row.
template <typename T>
INLINE void gather_rows(const T *x, const u32 *index, float *y, u32 width) {
    const u32 from = index[blockIdx.x];
    y += u64(blockIdx.x) * width;
    for (u32 i = threadIdx.x * FOUR; i < width; i += blockDim.x * FOUR) {
        float v[FOUR] = {};
        if (from != PADDING) {
            load(x + u64(from) * width + i, width, width - i, v);
        }
        store(y + i, width, width - i, v);
    }
}

// Column c of y is column index[c] of x, or zero; one block per row.
template <typename T>
INLINE void gather_columns(const T *x, const u32 *index, T *y, u32 width, u32 columns) {
    x += u64(blockIdx.x) * width, y += u64(blockIdx.x) * columns;
    for (u32 i = threadIdx.x; i < columns; i += blockDim.x) {
        const u32 from = index[i];
        y[i] = from == PADDING ? from_float<T>(0.0f) : x[from];
    }
}

// Row r of dx is the sum of the rows order[starts[r]] to order[starts[r + 1] - 1] of dy, in this
// order. A block has a part of a row.
INLINE void index_add(const float *dy, const u32 *starts, const u32 *order, float *dx, u32 width) {
    const u32 i = own_columns(), row = blockIdx.x;
    if (i >= width) {
        return;
    }
    float sum[FOUR] = {}, v[FOUR];
    const u32 end = starts[row + 1];
#pragma unroll 4
    for (u32 at = starts[row]; at < end; at++) {
        load(dy + u64(order[at]) * width + i, width, width - i, v);
        for (u32 e = 0; e < FOUR; e++) {
            sum[e] += v[e];
        }
    }
    store(dx + u64(row) * width + i, width, width - i, sum);
}

KERNEL(index_add_f32, 256, const float *dy, const u32 *starts, const u32 *order, float *dx,
       u32 width) {
    index_add(dy, starts, order, dx, width);
}

// The highest score of some columns, and the first column that has it; PADDING if there is none,
// because NaN is no score.
struct Best {
    float score;
    u32 at;
    INLINE void take(float other, u32 column) {
        if (other > score || (other == score && column < at)) {
            score = other, at = column;
        }
    }
};

// Chooses the token with the highest score, the first one among equals, for the text of each row,
// and moves the text to its next step: `ids` has the input of that step, `positions` its position,
// and `caches` (address, sizes) the number of keys with it. One block per row.
INLINE void next_tokens(const float *scores, u32 *ids, u32 *positions, u64 *caches, u32 width) {
    const u32 text = blockIdx.x, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    scores += u64(text) * width;
    Best best{-INFINITY, PADDING};
    for (u32 i = threadIdx.x * FOUR; i < width; i += blockDim.x * FOUR) {
        float v[FOUR];
        load(scores + i, width, width - i, v);
        for (u32 e = 0; e < FOUR && e < width - i; e++) {
            best.take(v[e], i + e);
        }
    }
    for (int lane = 16; lane > 0; lane /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, best.score, lane);
        best.take(other, __shfl_xor_sync(ALL_LANES, best.at, lane));
    }
    Best *each = shared_memory<Best>();
    if (threadIdx.x % WARP == 0) {
        each[warp] = best;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 w = 1; w < warps; w++) {
            best.take(each[w].score, each[w].at);
        }
        ids[text] = best.at == PADDING ? 0 : best.at;
        positions[text]++;
        caches[2 * text + 1]++;
    }
}

KERNEL(next_tokens_f32, 1024, const float *scores, u32 *ids, u32 *positions, u64 *caches,
       u32 width) {
    next_tokens(scores, ids, positions, caches, width);
}

#define ROWWISE(T, suffix)                                                                         \
    KERNEL(rms_norm_##suffix, 1024, const float *x, const float *w, T *y, u32 width, float eps) {  \
        rms_norm(x, w, y, width, eps);                                                             \
    }                                                                                              \
    KERNEL(rms_norm_backward_##suffix, 1024, const float *x, const float *w, const T *dy,          \
           const float *residual, float *dx, u32 width, float eps) {                               \
        rms_norm_backward(x, w, dy, residual, dx, width, eps);                                     \
    }                                                                                              \
    KERNEL(rope_##suffix, 1024, T *x, const u32 *positions, const float *cos, const float *sin,    \
           u32 stride, u32 heads, u32 dim, float sign) {                                           \
        rope(x, positions, cos, sin, stride, heads, dim, sign);                                    \
    }                                                                                              \
    KERNEL(gather_columns_##suffix, 1024, const T *x, const u32 *index, T *y, u32 width,           \
           u32 columns) {                                                                          \
        gather_columns(x, index, y, width, columns);                                               \
    }                                                                                              \
    KERNEL(gather_rows_##suffix, 1024, const T *x, const u32 *index, float *y, u32 width) {        \
        gather_rows(x, index, y, width);                                                           \
    }
FOR_EACH_TYPE(ROWWISE)

#define POINTWISE(T, suffix)                                                                       \
    KERNEL(swiglu_##suffix, 256, const T *gate_up, T *h, u32 width) { swiglu(gate_up, h, width); } \
    KERNEL(swiglu_backward_##suffix, 256, const T *gate_up, const T *dh, T *d, u32 width) {        \
        swiglu_backward(gate_up, dh, d, width);                                                    \
    }                                                                                              \
    KERNEL(add_##suffix, 256, T *y, const float *bias, const T *other, u32 width) {                \
        add(y, bias, other, width);                                                                \
    }
FOR_EACH_TYPE(POINTWISE)
