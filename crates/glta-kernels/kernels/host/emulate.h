// The part of CUDA that the kernels use, for kernels compiled as plain C++. The threads of a block
// are fibres; one runs at a time, until a barrier or an exchange between lanes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulate {
// Each test thread has its own device.
#define OF_THIS_DEVICE __thread __attribute__((tls_model("initial-exec")))
extern OF_THIS_DEVICE uint3 block_index, block_size, grid_size, thread_index;
unsigned char *shared();
void synchronise();
// The value of lane `mask` away, once all lanes of the warp have arrived.
std::uint32_t exchange(std::uint32_t value, unsigned mask);
// The values that the lanes of a warp pass to a collective operation, and receive from it.
struct Lanes {
    std::uint32_t words[32][10];
};
// Runs `operation` on the words of all lanes, once all lanes of the warp have arrived.
void together(std::uint32_t *words, unsigned count, void (*operation)(Lanes &));
// Stops the test unless this is 16 bytes of shared memory.
void check_shared(const void *place);
// Copies of 16 bytes whose content is undefined until they are waited for.
void copy_later(void *to, const void *from, bool exists);
void await_copies();
// Ends a group of copies; waits for all but the last `groups`.
void end_copies();
void await_copies_but(unsigned groups);

// Calls a kernel with arguments by address, as the driver does.
using Call = void (*)(void *const *arguments);
void add(const char *name, const char *file, unsigned threads, unsigned arguments, Call call);
// In a run with a random order, other threads may run meanwhile.
void fence();
// Checks that what the block wrote before an atomic operation is fenced.
void check_fences();

template <auto Kernel> struct Registered;
template <typename... A, void (*Kernel)(A...)> struct Registered<Kernel> {
    Registered(const char *name, const char *file, unsigned threads) {
        add(name, file, threads, sizeof...(A), call);
    }
    static void call(void *const *arguments) {
        spread(arguments, std::index_sequence_for<A...>());
    }
    template <std::size_t... I>
    static void spread(void *const *arguments, std::index_sequence<I...>) {
        Kernel(*static_cast<std::remove_const_t<A> *>(arguments[I])...);
    }
};
} // namespace emulate

#define REGISTER(name, threads)                                                                    \
    static const emulate::Registered<&name> registered_##name(#name, __FILE__, threads);

#define threadIdx (emulate::thread_index)
#define blockIdx (emulate::block_index)
#define blockDim (emulate::block_size)
#define gridDim (emulate::grid_size)

template <typename T> T *shared_memory() { return reinterpret_cast<T *>(emulate::shared()); }
inline void __syncthreads() { emulate::synchronise(); }
inline void __threadfence() { emulate::fence(); }
inline unsigned atomicAdd(unsigned *at, unsigned value) {
    emulate::check_fences();
    const unsigned before = *at;
    *at += value;
    return before;
}
template <typename T> T __ldcg(const T *from) { return *from; }

inline float __uint_as_float(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline std::uint32_t __float_as_uint(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __shfl_xor_sync(unsigned, float x, unsigned mask) {
    return __uint_as_float(emulate::exchange(__float_as_uint(x), mask));
}
inline std::uint32_t __shfl_xor_sync(unsigned, std::uint32_t x, unsigned mask) {
    return emulate::exchange(x, mask);
}

struct __half {
    std::uint16_t bits;
};
struct __nv_bfloat16 {
    std::uint16_t bits;
};
inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
inline std::uint16_t __half_as_ushort(__half x) { return x.bits; }
inline std::uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(std::uint32_t(x.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const std::uint32_t bits = __float_as_uint(x);
    if (x != x) {
        return {0x7fff};
    }
    return {std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline float __half2float(__half x) {
    const int exponent = x.bits >> 10 & 0x1f, mantissa = x.bits & 0x3ff;
    float value = exponent == 0 ? std::ldexp(float(mantissa), -24)
                                : std::ldexp(float(mantissa | 0x400), exponent - 25);
    if (exponent == 0x1f) {
        value = mantissa == 0 ? INFINITY : NAN;
    }
    return x.bits & 0x8000 ? -value : value;
}

inline __half __float2half_rn(float x) {
    const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (x != x) {
        return {0x7fff};
    }
    if (size >= 65520.0f) {
        return {std::uint16_t(sign | 0x7c00)};
    }
    int exponent = 0;
    std::frexp(size, &exponent); // size = m * 2^exponent, m in [0.5, 1)
    exponent = size == 0.0f || exponent < -13 ? -13 : exponent;
    // In units of the last place; a carry into the exponent is correct.
    const int units = int(std::nearbyint(std::ldexp(size, 11 - exponent)));
    return {std::uint16_t(sign | (((exponent + 13) << 10) + units))};
}
