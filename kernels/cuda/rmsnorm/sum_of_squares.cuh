// Sums of squares that keep what 32-bit additions lose, so that a norm is right to 1e-6 whatever its values.
#ifndef EDGELLM_SUM_OF_SQUARES_CUH
#define EDGELLM_SUM_OF_SQUARES_CUH

#include "dialect.cuh"
#include "warp.cuh"

// An unevaluated sum of two floats: the second holds what the first rounded away.
struct Compensated {
    float sum, lost;

    __device__ __forceinline__ void add(float v) {
        // Two-sum (Knuth): exact in sum + error, whichever is larger.
        const float total = __fadd_rn(sum, v), part = __fsub_rn(total, sum);
        lost += __fadd_rn(__fsub_rn(sum, __fsub_rn(total, part)), __fsub_rn(v, part));
        sum = total;
    }
    // The square's own rounding error is recovered by a fused multiply-add; __fmul_rn keeps the compiler from fusing it away.
    __device__ __forceinline__ void add_square(float v) {
        const float square = __fmul_rn(v, v);
        lost += __fmaf_rn(v, v, -square);
        add(square);
    }
    __device__ __forceinline__ void add(const Compensated& other) {
        add(other.sum);
        lost += other.lost;
    }
};

// The sum over a block of THREADS threads, in every thread, in a fixed order. `parts` is shared memory of THREADS / 32.
template <int THREADS_OF_BLOCK>
__device__ __forceinline__ float block_sum_of_squares(Compensated mine, float2* parts) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        Compensated other = {__shfl_xor_sync(FULL_WARP, mine.sum, offset), __shfl_xor_sync(FULL_WARP, mine.lost, offset)};
        mine.add(other);
    }
    if (THREADS_OF_BLOCK > WARP) {
        if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = make_float2(mine.sum, mine.lost);
        __syncthreads();
        mine = {parts[0].x, parts[0].y};
        for (int w = 1; w < THREADS_OF_BLOCK / WARP; ++w) mine.add(Compensated{parts[w].x, parts[w].y});
    }
    return mine.sum + mine.lost;
}

#endif
