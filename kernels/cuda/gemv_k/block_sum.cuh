// Sums over a whole block, for kernels with a block per row. Every thread of the block must call them.
#ifndef EDGELLM_BLOCK_SUM_CUH
#define EDGELLM_BLOCK_SUM_CUH

#include "dialect.cuh"
#include "warp.cuh"

// The sum over a block of SIZE threads, in every thread, always added in the same order. The barriers at both ends let
// it be called again at once. `parts` is shared memory of SIZE / 32 floats, declared by the kernel.
template <int SIZE>
__device__ __forceinline__ float block_sum(float v, float* parts) {
    static_assert(SIZE % WARP == 0 && SIZE <= 1024, "a block is whole warps");
    constexpr int WARPS_OF_BLOCK = SIZE / WARP;
    v = warp_sum(v);
    if (WARPS_OF_BLOCK == 1) return v;
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = v;
    __syncthreads();
    v = parts[0];
#pragma unroll
    for (int w = 1; w < WARPS_OF_BLOCK; ++w) v += parts[w];
    __syncthreads();
    return v;
}

#endif
