// One head's result as floats or as a part of a slab a8/32 (quantize_a8): K int8, then K/32 pairs (f32 s, f32 t), zeros up to
// a multiple of 16.
#ifndef EDGELLM_ATTN_SLAB_CUH
#define EDGELLM_ATTN_SLAB_CUH

#include "dialect.cuh"
#include "quantize_a8/rounding.cuh"
#include "warp.cuh"

// Stores element `at` of K. The 32 lanes of a warp must call this together with the 32 elements of a group in their order.
__device__ __forceinline__ void store_result(u8* out, int K, int at, float value, int bits) {
    if (bits != 8) {
        ((float*)out)[at] = value;
        return;
    }
    const float largest = warp_max_magnitude(value);
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    const int code = a8_code(value, inverse), sum = warp_sum_at_once(code);
    out[at] = (u8)code;
    if (at % 32 == 0) {
        float* const pair = (float*)(out + K) + at / 32 * 2;
        const float s = largest / 127.0f;
        pair[0] = s;
        pair[1] = s * (float)sum;
        // An odd number of groups leaves 8 bytes to the next multiple of 16; K is a multiple of 32.
        if (at == K - 32 && K / 32 % 2 == 1) pair[2] = pair[3] = 0.0f;
    }
}

// Stores elements `at` to `at + 3` of K, where `at` is a multiple of 4. All lanes of a warp call this together, and eight of them
// in a row have the elements of a group in their order; those that are not `real` store nothing.
__device__ __forceinline__ void store_four(u8* out, int K, int at, float4 v, bool real, int bits) {
    if (bits != 8) {
        if (real) *(float4*)((float*)out + at) = v;
        return;
    }
    float largest = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
    for (int offset = 1; offset < 8; offset *= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, offset));
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    const int a = a8_code(v.x, inverse), b = a8_code(v.y, inverse), c = a8_code(v.z, inverse), d = a8_code(v.w, inverse);
    const float sum = warp_sum_over<1, 8>((float)(a + b + c + d));  // Exact: of at most 32 codes.
    if (!real) return;
    *(u32*)(out + at) = (u32)(a & 255) | (u32)(b & 255) << 8 | (u32)(c & 255) << 16 | (u32)(d & 255) << 24;
    if (at % 32 == 0) {
        float* const pair = (float*)(out + K) + at / 32 * 2;
        const float s = largest / 127.0f;
        pair[0] = s;
        pair[1] = s * sum;
        if (at == K - 32 && K / 32 % 2 == 1) pair[2] = pair[3] = 0.0f;
    }
}

#endif
