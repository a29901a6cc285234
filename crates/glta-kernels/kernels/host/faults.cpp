// Kernels with errors that the emulator must find.
#include "../common.cuh"

// The last block to finish adds the parts, but no thread has fenced its own.
KERNEL(fault_no_fence, 64, float *parts, u32 *counter) {
    parts[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(counter, 1) + 1 == gridDim.x) {
        parts[0] = 2.0f;
    }
}

// As above; only the thread that counts has fenced.
KERNEL(fault_one_fence, 64, float *parts, u32 *counter) {
    parts[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        if (atomicAdd(counter, 1) + 1 == gridDim.x) {
            parts[0] = 2.0f;
        }
    }
}

// Blocks count without an atomic operation.
KERNEL(fault_shared_sum, 64, float *parts, u32 *counter) {
    parts[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
    if (threadIdx.x == 0) {
        const u32 before = *counter;
        __threadfence();
        *counter = before + 1;
    }
}

// Without an error: each block in its turn.
KERNEL(fault_none, 64, float *parts, u32 *counter) {
    parts[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
    finishes_last(counter, gridDim.x);
}
