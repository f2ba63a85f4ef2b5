// Blocks of 32 weights against int8 activations, for kernels that multiply the codes themselves.
//
// A kernel loads a `Block` (32 weights of one row, in registers) and asks for its integer product and its value. With
// isum = sum of code * x, activations x = s q and t = s * sum(q):
//
//   Q4_0  d (s isum - 8 t)     Q4_1  d s isum + m t     Q5_0  d (s isum - 16 t)     Q8_0  d s isum
//   G128  as Q4_0, but byte j holds weights 2j and 2j + 1, and four blocks share a scale
#ifndef EDGELLM_BLOCK_CUH
#define EDGELLM_BLOCK_CUH

#include "dialect.cuh"
#include "format.cuh"

#if FORMAT > G128
#error "formats of floats have no codes"
#endif

// 16-byte words of codes in a block.
#define CODE_WORDS (FORMAT == Q8_0 ? 2 : 1)
// Bytes of a block's entry in the scale plane, and blocks that share an entry.
#define SCALE_BYTES (FORMAT == Q4_1 ? 4 : 2)
#define SCALE_BLOCKS (FORMAT == G128 ? 4 : 1)
// Bytes of a block's entry in the plane of fifth bits.
#define HIGH_BYTES (FORMAT == Q5_0 ? 4 : 0)

// 32 weights of a row.
struct Block {
    uint4 codes[CODE_WORDS];
#if FORMAT == Q5_0
    // Bit 8 j + i is the fifth bit of byte j in code word i; words 4 to 7 are the upper nibbles.
    u32 high;
#endif
    // f16 bits of d; with Q4_1 m in the upper half.
    u32 scale;
};

// What lies beyond a matrix: codes of zero under a scale of zero add nothing.
__device__ __forceinline__ Block no_block() {
    Block b;
#pragma unroll
    for (int i = 0; i < CODE_WORDS; i++) b.codes[i] = make_uint4(0, 0, 0, 0);
#if FORMAT == Q5_0
    b.high = 0;
#endif
    b.scale = 0;
    return b;
}

// 32 activations: int8 codes 0..15 and 16..31, their scale s, and t = s * (sum of codes).
struct Activations {
    uint4 low, high;
    float s, t;
};

// Block `b` of a token's slab: K int8, then K/32 pairs of s and t. After pdl_wait only.
__device__ __forceinline__ Activations load_activations(const u8* slab, int K, int b) {
    Activations x;
    x.low = load_16(slab + b * 32);
    x.high = load_16(slab + b * 32 + 16);
    uint2 st = load_8(slab + K + b * 8);
    x.s = __uint_as_float(st.x);
    x.t = __uint_as_float(st.y);
#if FORMAT == G128
    // Even activations meet lower nibbles, odd ones upper nibbles: once here, for every row that shares them.
    uint4 a = x.low, c = x.high;
    x.low = make_uint4(__byte_perm(a.x, a.y, 0x6420), __byte_perm(a.z, a.w, 0x6420), __byte_perm(c.x, c.y, 0x6420),
                       __byte_perm(c.z, c.w, 0x6420));
    x.high = make_uint4(__byte_perm(a.x, a.y, 0x7531), __byte_perm(a.z, a.w, 0x7531), __byte_perm(c.x, c.y, 0x7531),
                        __byte_perm(c.z, c.w, 0x7531));
#endif
    return x;
}

// Bytes of a token's slab of activations: a multiple of 16.
__host__ __device__ constexpr int activation_stride(int K) {
    return (K + K / 32 * 8 + 15) / 16 * 16;
}

// Code word `i` of the block with its lower nibbles (0..3) or upper ones (4..7), one code a byte.
__device__ __forceinline__ u32 code_word(const Block& b, int i) {
#if FORMAT == Q8_0
    const uint4& v = b.codes[i >> 2];
#else
    const uint4& v = b.codes[0];
#endif
    u32 word = (i & 3) == 0 ? v.x : (i & 3) == 1 ? v.y : (i & 3) == 2 ? v.z : v.w;
#if FORMAT == Q8_0
    return word;
#else
    word = (i < 4 ? word : word >> 4) & 0x0f0f0f0fu;
#if FORMAT == Q5_0
    word |= (i < 4 ? b.high << (4 - i) : b.high >> (i - 4)) & 0x10101010u;
#endif
    return word;
#endif
}

// The sum of code * activation over the block, exact.
__device__ __forceinline__ int block_dot(const Block& b, const Activations& x) {
    int sum = 0;
    sum = dot4(code_word(b, 0), x.low.x, sum);
    sum = dot4(code_word(b, 4), x.high.x, sum);
    sum = dot4(code_word(b, 1), x.low.y, sum);
    sum = dot4(code_word(b, 5), x.high.y, sum);
    sum = dot4(code_word(b, 2), x.low.z, sum);
    sum = dot4(code_word(b, 6), x.high.z, sum);
    sum = dot4(code_word(b, 3), x.low.w, sum);
    sum = dot4(code_word(b, 7), x.high.w, sum);
    return sum;
}

// The block's product with its activations, added to `sum`.
__device__ __forceinline__ float block_add(const Block& b, const Activations& x, float sum) {
    float isum = (float)block_dot(b, x);
    float d = f16_to_f32((u16)(b.scale & 0xffffu));
#if FORMAT == Q4_1
    return fmaf(f16_to_f32((u16)(b.scale >> 16)), x.t, fmaf(d, x.s * isum, sum));
#elif FORMAT == Q8_0
    return fmaf(d, x.s * isum, sum);
#elif FORMAT == Q5_0
    return fmaf(d, fmaf(x.s, isum, -16.0f * x.t), sum);
#else
    return fmaf(d, fmaf(x.s, isum, -8.0f * x.t), sum);
#endif
}

#endif
