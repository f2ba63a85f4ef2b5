// Slabs a8/32 of several tokens: K int8, then K/32 pairs (f32 s, f32 t), zeros up to a multiple of 16, token by token.
#ifndef EDGELLM_SLAB_CUH
#define EDGELLM_SLAB_CUH

#include "dialect.cuh"

// Bytes from one token's slab to the next.
__host__ __device__ constexpr int slab_stride(int K) {
    return (K + K / 32 * 8 + 15) / 16 * 16;
}

#endif
