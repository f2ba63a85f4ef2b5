// The layout `row_interleaved_R`: tiles of R rows by 32/R blocks, so that a warp's load is 512 contiguous bytes.
//
//   codes   [N/R tiles][steps][32 lanes] of 16 bytes, lane = block * R + row (Q8_0: a second such plane for codes 16..31)
//   high    [tiles][steps][32] u32, Q5_0 only
//   scales  [tiles][steps][32] f16 (Q4_1: d and m)
//
// A tile has ceil(K/32 / (32/R)) steps. Rows and blocks beyond the matrix are zero. Planes start at multiples of 256.
#ifndef EDGELLM_INTERLEAVED_CUH
#define EDGELLM_INTERLEAVED_CUH

#include "block.cuh"

#if FORMAT == G128
#error "g128 weights have no interleaved layout"
#endif

struct Interleaved {
    const u8* codes[CODE_WORDS];
#if FORMAT == Q5_0
    const u8* high;
#endif
    const u8* scales;
};

__device__ __forceinline__ Interleaved interleaved_of(const u8* W, int tiles, int steps) {
    const i64 places = (i64)tiles * steps * WARP;
    Interleaved p;
    i64 at = 0;
#pragma unroll
    for (int i = 0; i < CODE_WORDS; i++) {
        p.codes[i] = W + at;
        at += (places * 16 + 255) / 256 * 256;
    }
#if FORMAT == Q5_0
    p.high = W + at;
    at += (places * 4 + 255) / 256 * 256;
#endif
    p.scales = W + at;
    return p;
}

// The block of a lane: `place` is (tile * steps + step) * 32 + lane.
__device__ __forceinline__ Block load_block(const Interleaved& p, u32 place) {
    Block b;
#pragma unroll
    for (int i = 0; i < CODE_WORDS; i++) b.codes[i] = load_weights_16(p.codes[i] + (u64)place * 16);
#if FORMAT == Q5_0
    b.high = load_weights_4(p.high + (u64)place * 4);
#endif
#if FORMAT == Q4_1
    b.scale = load_weights_4(p.scales + (u64)place * 4);
#else
    b.scale = load_weights_2(p.scales + (u64)place * 2);
#endif
    return b;
}

#endif
