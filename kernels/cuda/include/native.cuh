// Weights where they lie in the file (layout gguf), or in g128: one float at a time, or a few codes of one block.
//
// Blocks of Q4_0, Q5_0 and Q8_0 start at even addresses only: no load here is wider than two bytes (GB7).
//
//   Q4_0  18 bytes  d f16, qs[16]             w = d (q - 8)      qs[i] low nibble: w[i], high: w[i + 16]
//   Q4_1  20 bytes  d f16, m f16, qs[16]      w = d q + m
//   Q5_0  22 bytes  d f16, qh u32, qs[16]     w = d (q - 16)     bit i of qh is the fifth bit of w[i]
//   Q8_0  34 bytes  d f16, qs[32] signed      w = d q
//   G128  planes    qs, byte i: w[2i], w[2i + 1]; behind them at a multiple of 256 one f16 for 128 weights
#ifndef EDGELLM_NATIVE_CUH
#define EDGELLM_NATIVE_CUH

#include "dialect.cuh"
#include "format.cuh"

#if FORMAT == Q4_0
#define BLOCK_BYTES 18
#define CODES_AT 2
#elif FORMAT == Q4_1
#define BLOCK_BYTES 20
#define CODES_AT 4
#elif FORMAT == Q5_0
#define BLOCK_BYTES 22
#define CODES_AT 6
#elif FORMAT == Q8_0
#define BLOCK_BYTES 34
#define CODES_AT 2
#elif FORMAT == G128
#define BLOCK_BYTES 16
#define CODES_AT 0
#endif

#if FORMAT <= G128
// What the codes of a block are scaled with: w = d * code + m.
struct Scale {
    float d, m;
};

__device__ __forceinline__ const u8* block_at(const u8* W, u32 index) {
    return W + (u64)index * BLOCK_BYTES;
}

__device__ __forceinline__ Scale scale_of(const u8* W, u32 index, int N, int K) {
    Scale s;
#if FORMAT == G128
    u64 codes = ((u64)N * (K / 2) + 255) / 256 * 256;
    s.d = f16_to_f32(load_weights_2(W + codes + (u64)(index / 4) * 2));
    s.m = -8.0f * s.d;
#else
    const u8* b = block_at(W, index);
    (void)N;
    (void)K;
    s.d = f16_to_f32(load_weights_2(b));
#if FORMAT == Q4_0
    s.m = -8.0f * s.d;
#elif FORMAT == Q4_1
    s.m = f16_to_f32(load_weights_2(b + 2));
#elif FORMAT == Q5_0
    s.m = -16.0f * s.d;
#else
    s.m = 0.0f;
#endif
#endif
    return s;
}

// Which of the block's 32 weights is element `e` of unit `i`, where a unit is COUNT weights that share bytes of codes.
template <int COUNT>
__device__ __forceinline__ int place_in_block(int i, int e) {
#if FORMAT == Q8_0 || FORMAT == G128
    return i * COUNT + e;
#else
    return e < COUNT / 2 ? i * (COUNT / 2) + e : 16 + i * (COUNT / 2) + e - COUNT / 2;
#endif
}

// The codes of COUNT weights: raw bytes, and the fifth bits where there are any.
template <int COUNT>
struct Codes {
    u16 raw[FORMAT == Q8_0 ? (COUNT + 1) / 2 : (COUNT + 3) / 4];
    u32 high;
};

template <int COUNT>
__device__ __forceinline__ Codes<COUNT> load_codes(const u8* W, u32 index, int i) {
    constexpr int BYTES = FORMAT == Q8_0 ? COUNT : COUNT / 2;
    const u8* at = block_at(W, index) + CODES_AT + i * BYTES;
    Codes<COUNT> c;
    c.high = 0;
    if (BYTES == 1) {
        c.raw[0] = *at;
    } else {
#pragma unroll
        for (int w = 0; w < BYTES / 2; w++) c.raw[w] = load_weights_2(at + 2 * w);
    }
#if FORMAT == Q5_0
    const u8* b = block_at(W, index);
    c.high = (u32)load_weights_2(b + 2) | (u32)load_weights_2(b + 4) << 16;
#endif
    return c;
}

// The code of element `e` of a unit, a whole number; its offset is in Scale::m.
template <int COUNT>
__device__ __forceinline__ float code_of(const Codes<COUNT>& c, int i, int e) {
#if FORMAT == Q8_0
    (void)i;
    return (float)(i8)(u8)(c.raw[e / 2] >> (e % 2 * 8));
#else
#if FORMAT == G128
    int byte = e / 2, nibble = e % 2;
#else
    int byte = e % (COUNT / 2), nibble = e / (COUNT / 2);
#endif
    u32 code = (u32)(c.raw[byte / 2] >> (byte % 2 * 8 + nibble * 4)) & 15u;
#if FORMAT == Q5_0
    code |= (c.high >> place_in_block<COUNT>(i, e) & 1u) << 4;
#else
    (void)i;
#endif
    return (float)(int)code;
#endif
}
#endif

// The weight of a row at a column, decoded alone: the simplest way there is.
__device__ __forceinline__ float weight_at(const u8* W, int row, int column, int N, int K) {
#if FORMAT == F32
    (void)N;
    return ((const float*)W)[(i64)row * K + column];
#elif FORMAT == F16
    (void)N;
    return f16_to_f32(((const u16*)W)[(i64)row * K + column]);
#elif FORMAT == BF16
    (void)N;
    return bf16_to_f32(((const u16*)W)[(i64)row * K + column]);
#else
    u32 index = (u32)row * (K / 32) + column / 32;
    int j = column % 32;
    Scale s = scale_of(W, index, N, K);
    const u8* codes = block_at(W, index) + CODES_AT;
#if FORMAT == Q8_0
    int code = (i8)codes[j];
#elif FORMAT == G128
    int code = codes[j / 2] >> (j % 2 * 4) & 15;
#else
    int code = codes[j % 16] >> (j / 16 * 4) & 15;
#if FORMAT == Q5_0
    const u8* b = block_at(W, index);
    code |= (b[2 + j / 8] >> (j % 8) & 1) << 4;
#endif
#endif
    return fmaf(s.d, (float)code, s.m);
#endif
}

#endif
