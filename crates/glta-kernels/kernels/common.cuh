// Code that all kernels share. It is also compiled as plain C++, with host/emulate.h in place of
// the device: use only what that header provides.
#pragma once

#ifdef __CUDACC__
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define REGISTER(name, threads)
extern __shared__ __align__(16) unsigned char dynamic_shared[];
template <typename T> __device__ __forceinline__ T *shared_memory() {
    return reinterpret_cast<T *>(dynamic_shared);
}
#else
#include "host/emulate.h"
#endif

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using f16 = __half;
using bf16 = __nv_bfloat16;

// Defines a kernel under its own name, `KERNEL(name, threads, parameters) { .. }`. `bounds` are the
// threads and the blocks per multiprocessor, in brackets.
#define KERNEL(name, threads, ...) BOUND_KERNEL(name, threads, (threads), __VA_ARGS__)
#define BOUND_KERNEL(name, threads, bounds, ...)                                                   \
    extern "C" __global__ void __launch_bounds__ bounds name(__VA_ARGS__);                         \
    REGISTER(name, threads)                                                                        \
    extern "C" __global__ void __launch_bounds__ bounds name(__VA_ARGS__)

// Expands `X(type, suffix)` for every type of activations.
#define FOR_EACH_TYPE(X) X(float, f32) X(f16, f16) X(bf16, bf16)

#define INLINE __device__ __forceinline__

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
// Index of a missing row or column, which is read as zero.
constexpr u32 PADDING = 0xffffffffu;

INLINE float to_float(float x) { return x; }
INLINE float to_float(f16 x) { return __half2float(x); }
INLINE float to_float(bf16 x) { return __bfloat162float(x); }

template <typename T> INLINE T from_float(float x);
template <> INLINE float from_float<float>(float x) { return x; }
template <> INLINE f16 from_float<f16>(float x) { return __float2half_rn(x); }
template <> INLINE bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// The two values of a word, the first in its lower half.
INLINE void unpack(u32 word, float *to, f16) {
    to[0] = __half2float(__ushort_as_half(u16(word)));
    to[1] = __half2float(__ushort_as_half(u16(word >> 16)));
}
INLINE void unpack(u32 word, float *to, bf16) {
    to[0] = __uint_as_float(word << 16);
    to[1] = __uint_as_float(word & 0xffff0000u);
}
INLINE u16 bits(f16 x) { return __half_as_ushort(x); }
INLINE u16 bits(bf16 x) { return __bfloat16_as_ushort(x); }
template <typename T> INLINE u32 pack(float low, float high) {
    return u32(bits(from_float<T>(low))) | u32(bits(from_float<T>(high))) << 16;
}

// (x & mask) | set in one operation; two constants would otherwise take two.
INLINE u32 insert(u32 x, u32 mask, u32 set) {
#ifdef __CUDACC__
    u32 result;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(x), "r"(mask), "r"(set));
    return result;
#else
    return (x & mask) | set;
#endif
}

// Loads of words that are read once: they do not displace other data from the cache.
#ifdef __CUDACC__
INLINE u32 load_once(const u32 *from) {
    u32 v;
    asm("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}
INLINE uint2 load_once(const uint2 *from) {
    uint2 v;
    asm("ld.global.nc.L1::no_allocate.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}
INLINE uint4 load_once(const uint4 *from) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(from));
    return v;
}
#else
template <typename V> V load_once(const V *from) { return *from; }
#endif

// Four adjacent values, aligned to their size.
INLINE void load4(const float *from, float *to) {
    const float4 v = *reinterpret_cast<const float4 *>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
template <typename T> INLINE void load4(const T *from, float *to) {
    const uint2 v = *reinterpret_cast<const uint2 *>(from);
    unpack(v.x, to, T());
    unpack(v.y, to + 2, T());
}
INLINE void store4(float *to, const float *v) {
    *reinterpret_cast<float4 *>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
template <typename T> INLINE void store4(T *to, const float *v) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(pack<T>(v[0], v[1]), pack<T>(v[2], v[3]));
}

// Whether this block is the last of `blocks` to get here; `counter` is zero before the first and
// after the last. The last one sees what the others wrote before. The first four bytes of shared
// memory are overwritten, and no thread uses shared memory meanwhile.
INLINE bool finishes_last(u32 *counter, u32 blocks) {
    u32 *finished = shared_memory<u32>();
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *finished = atomicAdd(counter, 1u);
    }
    __syncthreads();
    if (*finished + 1 != blocks) {
        return false;
    }
    if (threadIdx.x == 0) {
        *counter = 0;
    }
    __threadfence();
    return true;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

INLINE float warp_sum(float x) {
    for (int lane = 16; lane > 0; lane /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, lane);
    }
    return x;
}

// Sum over a block of whole warps, the same in every thread. `scratch` has 32 floats, which no
// other code may use meanwhile.
INLINE float block_sum(float x, float *scratch) {
    const u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        scratch[warp] = x;
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 w = 0; w < warps; w++) {
        sum += scratch[w];
    }
    return sum;
}
