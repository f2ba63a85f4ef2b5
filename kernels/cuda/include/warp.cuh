// Sums and maxima over the lanes of a warp. Every lane of the warp must call them.
#ifndef EDGELLM_WARP_CUH
#define EDGELLM_WARP_CUH

#include "dialect.cuh"

// The sum over groups of lanes that differ in the bits between FROM and TO: lanes l and l + FROM, l + 2 FROM, ... up to
// TO lanes apart. `warp_sum_over<1, 32>` is the whole warp. Every lane gets the sum, in the same fixed order.
template <int FROM, int TO>
__device__ __forceinline__ float warp_sum_over(float v) {
#pragma unroll
    for (int offset = TO / 2; offset >= FROM; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

// The sum over the warp, in every lane.
__device__ __forceinline__ float warp_sum(float v) {
    return warp_sum_over<1, WARP>(v);
}

// The sum of integers over the warp, in every lane.
__device__ __forceinline__ int warp_sum(int v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_WARP, v, offset);
    return v;
}

// The maximum over the warp, in every lane; a NaN is passed over, as fmaxf does.
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, offset));
    return v;
}

// The largest magnitude over the warp, in every lane, in one step from sm_80 on. Bits of magnitudes order as the numbers do;
// a NaN is above all. (PTX: redux.sync)
__device__ __forceinline__ float warp_max_magnitude(float v) {
    u32 bits = __float_as_uint(v) & 0x7fffffffu;
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    bits = __reduce_max_sync(FULL_WARP, bits);
#else
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) bits = max(bits, __shfl_xor_sync(FULL_WARP, bits, offset));
#endif
    return __uint_as_float(bits);
}

// As warp_sum of integers, in one step from sm_80 on. (PTX: redux.sync)
__device__ __forceinline__ int warp_sum_at_once(int v) {
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_add_sync(FULL_WARP, v);
#else
    return warp_sum(v);
#endif
}

#endif
