// The end of a gated layer: silu, and the rounding of 32 outputs by a warp.
#ifndef EDGELLM_DECODE_SWIGLU_CUH
#define EDGELLM_DECODE_SWIGLU_CUH

#include "decode/names.cuh"
#include "quantize_a8/rounding.cuh"
#include "warp.cuh"

// g / (1 + exp(-g)). Where the exponential overflows the quotient is zero, as it should be.
__device__ __forceinline__ float silu(float g) {
    return g / (1.0f + __expf(-g));
}

// Writes output `at` of F to a slab a8/32, of which the lanes of a warp have the 32 outputs of a group, or as a float.
__device__ __forceinline__ void put_output(u8* slab, int F, int at, float value) {
#if FLOATS
    (void)F;
    ((float*)slab)[at] = value;
#else
    const float largest = warp_max(fabsf(value));
    const int code = a8_code(value, largest == 0.0f ? 0.0f : 127.0f / largest);
    const int sum = warp_sum(code);
    slab[at] = (u8)code;
    if (threadIdx.x % WARP == 0) {
        const float s = largest / 127.0f;
        float2* const pairs = (float2*)(slab + F);
        pairs[at / 32] = make_float2(s, s * (float)sum);
        // Slabs end at a multiple of 16 bytes.
        if (at / 32 == F / 32 - 1 && F / 32 % 2 == 1) pairs[at / 32 + 1] = make_float2(0.0f, 0.0f);
    }
#endif
}

#endif
