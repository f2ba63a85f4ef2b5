// Keys and values of a layer as attention reads them: [KV_HEADS, MAX_LEN, DIM] in f16, or in int8 with a scale for each head
// and position. The scale of a key goes on its score and that of a value on its weight, so that codes are used as they are.
#ifndef EDGELLM_CACHE_CUH
#define EDGELLM_CACHE_CUH

#include "dialect.cuh"

// The value of element `at` of a cache, apart from its scale.
__device__ __forceinline__ float element(const u8* cache, u64 at, int kv) {
    return kv == 16 ? f16_to_f32(((const u16*)cache)[at]) : (float)((const i8*)cache)[at];
}

// Elements `at` to `at` + 7, apart from their scale; `at` is a multiple of 8.
__device__ __forceinline__ void eight_elements(const u8* cache, u64 at, int kv, float (&to)[8]) {
    if (kv == 16) {
        const uint4 v = load_16(cache + at * 2);
        const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = f16x2_to_f32(words[i]);
            to[2 * i] = pair.x;
            to[2 * i + 1] = pair.y;
        }
    } else {
        const uint2 v = load_8(cache + at);
#pragma unroll
        for (int i = 0; i < 8; ++i) to[i] = (float)(i8)(u8)((i < 4 ? v.x : v.y) >> (i % 4 * 8));
    }
}

// The scale of the key or value in slot `at`, counted over heads and positions.
__device__ __forceinline__ float scale_at(const float* scales, u64 at, int kv) {
    return kv == 16 ? 1.0f : scales[at];
}

#endif
