// The layout `planes` (and `g128`, which is the same for its format): one slab a matrix, every plane at a multiple of 256.
//
//   codes   [N][K/32] of 16 bytes (Q8_0: 32), nibbles in the order of the file
//   high    [N][K/32] u32, Q5_0 only
//   scales  [N][K/32] f16 (Q4_1: d and m; G128: [N][K/128])
#ifndef EDGELLM_PLANES_CUH
#define EDGELLM_PLANES_CUH

#include "block.cuh"

struct Planes {
    const u8* codes;
#if FORMAT == Q5_0
    const u8* high;
#endif
    const u8* scales;
};

__host__ __device__ constexpr i64 plane_bytes(i64 bytes) {
    return (bytes + 255) / 256 * 256;
}

__device__ __forceinline__ Planes planes_of(const u8* W, int N, int K) {
    i64 blocks = (i64)N * (K / 32);
    Planes p;
    p.codes = W;
    i64 at = plane_bytes(blocks * (16 * CODE_WORDS));
#if FORMAT == Q5_0
    p.high = W + at;
    at += plane_bytes(blocks * HIGH_BYTES);
#endif
    p.scales = W + at;
    return p;
}

// The block at an index that counts through the whole matrix: N * K / 32 of them, below 2^31 for every model.
__device__ __forceinline__ Block load_block(const Planes& p, u32 index) {
    Block b;
#pragma unroll
    for (int i = 0; i < CODE_WORDS; i++) b.codes[i] = load_weights_16(p.codes + (u64)index * (16 * CODE_WORDS) + 16 * i);
#if FORMAT == Q5_0
    b.high = load_weights_4(p.high + (u64)index * 4);
#endif
#if FORMAT == Q4_1
    b.scale = load_weights_4(p.scales + (u64)index * 4);
#else
    b.scale = load_weights_2(p.scales + (u64)(index / SCALE_BLOCKS) * 2);
#endif
    return b;
}

#endif
