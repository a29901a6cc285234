// Norms, rotary embedding, activations, and moves of rows and columns.
#include "common.cuh"

// y = x / rms(x) * w; one block per row. The residual stream x and its gradient are f32; only the
// inputs of linear layers are rounded.
template <typename T>
INLINE void rms_norm(const float *x, const float *w, T *y, u32 width, float eps) {
    x += u64(blockIdx.x) * width, y += u64(blockIdx.x) * width;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        sum = fmaf(x[i], x[i], sum);
    }
    const float r = 1.0f / sqrtf(block_sum(sum, shared_memory<float>()) / float(width) + eps);
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        y[i] = from_float<T>(w[i] * (x[i] * r));
    }
}

// dx = residual + r w dy - x r^3 / n sum(w dy x); a null `residual` means zero.
template <typename T>
INLINE void rms_norm_backward(const float *x, const float *w, const T *dy, const float *residual,
                              float *dx, u32 width, float eps) {
    const u64 row = u64(blockIdx.x) * width;
    float *scratch = shared_memory<float>();
    float squares = 0.0f, products = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float v = x[row + i];
        squares = fmaf(v, v, squares);
        products = fmaf(w[i] * to_float(dy[row + i]), v, products);
    }
    const float r = 1.0f / sqrtf(block_sum(squares, scratch) / float(width) + eps);
    const float common = block_sum(products, scratch + WARP) * r * r * r / float(width);
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float before = residual == nullptr ? 0.0f : residual[row + i];
        const float own = fmaf(w[i] * to_float(dy[row + i]), r, before);
        dx[row + i] = fmaf(x[row + i], -common, own);
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
    for (u32 j = threadIdx.x; j < heads * half; j += blockDim.x) {
        const u32 i = j % half;
        T *a = x + j / half * dim + i, *b = a + half;
        const float c = cos[at + i], s = sign * sin[at + i];
        const float x0 = to_float(*a), x1 = to_float(*b);
        *a = from_float<T>(x0 * c - x1 * s);
        *b = from_float<T>(x1 * c + x0 * s);
    }
}

// silu(gate) * up of rows (gate, up).
template <typename T> INLINE void swiglu(const T *gate_up, T *h, u32 rows, u32 width) {
    const u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= u64(rows) * width) {
        return;
    }
    const T *gate = gate_up + i / width * 2 * width + i % width;
    const float g = to_float(gate[0]);
    h[i] = from_float<T>(g * sigmoid(g) * to_float(gate[width]));
}

template <typename T>
INLINE void swiglu_backward(const T *gate_up, const T *dh, T *d, u32 rows, u32 width) {
    const u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= u64(rows) * width) {
        return;
    }
    const u64 at = i / width * 2 * width + i % width;
    const float g = to_float(gate_up[at]), up = to_float(gate_up[at + width]);
    const float s = sigmoid(g), silu = g * s, grad = to_float(dh[i]);
    d[at] = from_float<T>(grad * up * fmaf(silu, 1.0f - s, s));
    d[at + width] = from_float<T>(grad * silu);
}

// y += bias + other; either may be null.
template <typename T>
INLINE void add(T *y, const float *bias, const T *other, u32 rows, u32 width) {
    const u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= u64(rows) * width) {
        return;
    }
    float sum = to_float(y[i]);
    if (bias != nullptr) {
        sum += bias[i % width];
    }
    if (other != nullptr) {
        sum += to_float(other[i]);
    }
    y[i] = from_float<T>(sum);
}

// Row r of y is row index[r] of x, or zero; one block per row.
template <typename T>
INLINE void gather_rows(const T *x, const u32 *index, float *y, u32 width) {
    const u32 from = index[blockIdx.x];
    y += u64(blockIdx.x) * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        y[i] = from == PADDING ? 0.0f : to_float(x[u64(from) * width + i]);
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
    KERNEL(swiglu_##suffix, 256, const T *gate_up, T *h, u32 rows, u32 width) {                    \
        swiglu(gate_up, h, rows, width);                                                           \
    }                                                                                              \
    KERNEL(swiglu_backward_##suffix, 256, const T *gate_up, const T *dh, T *d, u32 rows,           \
           u32 width) {                                                                            \
        swiglu_backward(gate_up, dh, d, rows, width);                                              \
    }                                                                                              \
    KERNEL(add_##suffix, 256, T *y, const float *bias, const T *other, u32 rows, u32 width) {      \
        add(y, bias, other, rows, width);                                                          \
    }
FOR_EACH_TYPE(POINTWISE)
