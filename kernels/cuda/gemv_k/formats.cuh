// Units of the K-quant planes, of native Q4_K blocks, of Q8_0 planes and of TQ2_0 planes against a8/32 activations.
//
// Planes start at multiples of 256 bytes, one behind the other. A row of a plane is contiguous.
//
//   Q4_K   codes [N, K/32] x 16 B   byte j: weight j low, j + 16 high
//          scales and minima [N, K/32] x 2 B     d and dmin, f16 [N, K/256] x 4 B       4.625 bits a weight
//   Q5_K   as Q4_K, and behind the codes the fifth bits [N, K/32] x 4 B: bit g of byte i is that of weight 4 g + i
//   Q6_K   low bits [N, K/32] x 16 B as Q4_K   upper bits [N, K/32] x 8 B: in byte i of word h, bits 0-1 are those of weight
//          8 h + i, 2-3 of 8 h + 4 + i, 4-5 of 16 + 8 h + i, 6-7 of 16 + 8 h + 4 + i
//          scales i8 [N, K/16]   d f16 [N, K/256]
//   Q8_0   codes i8 [N, K]   d f16 [N, K/32]
//   TQ2_0  codes [N, K/64] x 16 B: bits 2p of byte j are those of weight 16 p + j   d f16 [N, K/256]
//
// A slab of activations is K int8, then K/32 pairs of floats (s, t = s * sum of the codes).
#ifndef EDGELLM_FORMATS_CUH
#define EDGELLM_FORMATS_CUH

#include "dialect.cuh"

__device__ __forceinline__ u64 align_256(u64 bytes) {
    return (bytes + 255) / 256 * 256;
}

#define LOW_NIBBLES 0x0f0f0f0fu

// 32 activations of a8/32 with their scale and scale times sum.
struct Group32 {
    uint4 low, high;
    float s, t;
};

__device__ __forceinline__ Group32 group_32(const u8* x, int K, int block) {
    Group32 g;
    g.low = load_16(x + block * 32);
    g.high = load_16(x + block * 32 + 16);
    const uint2 st = load_8(x + K + block * 8);
    g.s = __uint_as_float(st.x);
    g.t = __uint_as_float(st.y);
    return g;
}

__device__ __forceinline__ int dot16(uint4 w, uint4 x, int sum) {
    return dot4(w.w, x.w, dot4(w.z, x.z, dot4(w.y, x.y, dot4(w.x, x.x, sum))));
}

// The dot product of 32 nibbles (byte j: weight j low, j + 16 high) with 32 activations.
__device__ __forceinline__ int dot_nibbles(uint4 q, const Group32& a) {
    int sum = dot4(q.x & LOW_NIBBLES, a.low.x, 0);
    sum = dot4(q.x >> 4 & LOW_NIBBLES, a.high.x, sum);
    sum = dot4(q.y & LOW_NIBBLES, a.low.y, sum);
    sum = dot4(q.y >> 4 & LOW_NIBBLES, a.high.y, sum);
    sum = dot4(q.z & LOW_NIBBLES, a.low.z, sum);
    sum = dot4(q.z >> 4 & LOW_NIBBLES, a.high.z, sum);
    sum = dot4(q.w & LOW_NIBBLES, a.low.w, sum);
    return dot4(q.w >> 4 & LOW_NIBBLES, a.high.w, sum);
}

// The same of 32 codes of five bits: bit g of byte i of `high` is the fifth of weight 4 g + i.
__device__ __forceinline__ int dot_five_bits(uint4 q, u32 high, const Group32& a) {
    const u32 FIFTH = 0x10101010u;
    int sum = dot4((q.x & LOW_NIBBLES) | (high << 4 & FIFTH), a.low.x, 0);
    sum = dot4((q.y & LOW_NIBBLES) | (high << 3 & FIFTH), a.low.y, sum);
    sum = dot4((q.z & LOW_NIBBLES) | (high << 2 & FIFTH), a.low.z, sum);
    sum = dot4((q.w & LOW_NIBBLES) | (high << 1 & FIFTH), a.low.w, sum);
    sum = dot4((q.x >> 4 & LOW_NIBBLES) | (high & FIFTH), a.high.x, sum);
    sum = dot4((q.y >> 4 & LOW_NIBBLES) | (high >> 1 & FIFTH), a.high.y, sum);
    sum = dot4((q.z >> 4 & LOW_NIBBLES) | (high >> 2 & FIFTH), a.high.z, sum);
    sum = dot4((q.w >> 4 & LOW_NIBBLES) | (high >> 3 & FIFTH), a.high.w, sum);
    return sum;
}

// d sc s isum - dmin mn t, with (d, dmin) as two f16 of a word and (sc, mn) as two bytes.
__device__ __forceinline__ float scaled_with_min(u32 d_dmin, u32 sc_mn, int isum, float s, float t) {
    const float2 d = f16x2_to_f32(d_dmin);
    return d.x * (float)(sc_mn & 255u) * (s * (float)isum) - d.y * (float)(sc_mn >> 8) * t;
}

// Q4_K in planes; a unit is a sub-block of 32.
struct Q4KPlanes {
    struct Fragment { uint4 q; u32 sc_mn, d; };
    struct Row { const u8 *q, *sc, *d; };
    typedef Group32 Activations;
    static __device__ __forceinline__ int units(int K) { return K / 32; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 blocks = (u64)N * (K / 32), at = (u64)row * (K / 32);
        const u64 sc = align_256(blocks * 16), d = sc + align_256(blocks * 2);
        return {W + at * 16, W + sc + at * 2, W + d + at / 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_2(r.sc + unit * 2), load_weights_4(r.d + unit / 8 * 4)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0, 0}; }
    static __device__ __forceinline__ Group32 activations(const u8* x, int K, int unit) { return group_32(x, K, unit); }
    static __device__ __forceinline__ float dot(const Fragment& w, const Group32& a) {
        return scaled_with_min(w.d, w.sc_mn, dot_nibbles(w.q, a), a.s, a.t);
    }
};

// Q5_K in planes; a unit is a sub-block of 32.
struct Q5KPlanes {
    struct Fragment { uint4 q; u32 high, sc_mn, d; };
    struct Row { const u8 *q, *high, *sc, *d; };
    typedef Group32 Activations;
    static __device__ __forceinline__ int units(int K) { return K / 32; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 blocks = (u64)N * (K / 32), at = (u64)row * (K / 32);
        const u64 high = align_256(blocks * 16), sc = high + align_256(blocks * 4), d = sc + align_256(blocks * 2);
        return {W + at * 16, W + high + at * 4, W + sc + at * 2, W + d + at / 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_4(r.high + unit * 4), load_weights_2(r.sc + unit * 2),
                load_weights_4(r.d + unit / 8 * 4)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0, 0, 0}; }
    static __device__ __forceinline__ Group32 activations(const u8* x, int K, int unit) { return group_32(x, K, unit); }
    static __device__ __forceinline__ float dot(const Fragment& w, const Group32& a) {
        return scaled_with_min(w.d, w.sc_mn, dot_five_bits(w.q, w.high, a), a.s, a.t);
    }
};

// Q6_K in planes; a unit is 32 weights with two scales. The offset of 32 is taken from the integer sums, where it is exact.
struct Q6KPlanes {
    struct Fragment { uint4 low; uint2 high; u32 sc, d; };
    struct Row { const u8 *low, *high, *sc, *d; };
    // `first` and `second` are -32 times the sums of the two halves: one pair for all rows that share the activations.
    struct Activations { uint4 low, high; float s; int first, second; };
    static __device__ __forceinline__ int units(int K) { return K / 32; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 blocks = (u64)N * (K / 32), at = (u64)row * (K / 32);
        const u64 high = align_256(blocks * 16), sc = high + align_256(blocks * 8), d = sc + align_256(blocks * 2);
        return {W + at * 16, W + high + at * 8, W + sc + at * 2, W + d + at / 4};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.low + unit * 16), load_weights_8(r.high + unit * 8), load_weights_2(r.sc + unit * 2),
                load_weights_2(r.d + unit / 8 * 2)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), make_uint2(0, 0), 0, 0}; }
    static __device__ __forceinline__ Activations activations(const u8* x, int K, int unit) {
        Activations a;
        a.low = load_16(x + unit * 32);
        a.high = load_16(x + unit * 32 + 16);
        a.s = *(const float*)(x + K + unit * 8);
        const uint4 ones = make_uint4(0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u);
        a.first = -32 * dot16(ones, a.low, 0);
        a.second = -32 * dot16(ones, a.high, 0);
        return a;
    }
    static __device__ __forceinline__ float dot(const Fragment& w, const Activations& a) {
        const u32 TOP = 0x30303030u;
        const u32 h = w.high.x, g = w.high.y;
        int first = dot4((w.low.x & LOW_NIBBLES) | (h << 4 & TOP), a.low.x, a.first);
        first = dot4((w.low.y & LOW_NIBBLES) | (h << 2 & TOP), a.low.y, first);
        first = dot4((w.low.z & LOW_NIBBLES) | (g << 4 & TOP), a.low.z, first);
        first = dot4((w.low.w & LOW_NIBBLES) | (g << 2 & TOP), a.low.w, first);
        int second = dot4((w.low.x >> 4 & LOW_NIBBLES) | (h & TOP), a.high.x, a.second);
        second = dot4((w.low.y >> 4 & LOW_NIBBLES) | (h >> 2 & TOP), a.high.y, second);
        second = dot4((w.low.z >> 4 & LOW_NIBBLES) | (g & TOP), a.high.z, second);
        second = dot4((w.low.w >> 4 & LOW_NIBBLES) | (g >> 2 & TOP), a.high.w, second);
        // Scales are signed; the products stay below 2^31: 128 * 16 * 127 * 32 = 8.3e6 each.
        const int isum = (int)(i8)(w.sc & 255u) * first + (int)(i8)(w.sc >> 8) * second;
        return f16_to_f32((u16)w.d) * (a.s * (float)isum);
    }
};

// Q4_K as the file has it: 144-byte blocks, read as nine vectors of 16 bytes. The header is the same address for the lanes
// of a block, one transaction. LANES lanes share a block: with 8 a unit is one vector of codes, with 4 it is two.
#ifdef LANES
static_assert(LANES == 4 || LANES == 8, "a block of Q4_K has 4 or 8 lanes");
struct Q4KNative {
    struct Fragment { uint4 header, q[8 / LANES]; int at; };
    struct Row { const u8* blocks; };
    struct Activations { uint4 low[8 / LANES], high[8 / LANES]; float2 first, second; };
    static __device__ __forceinline__ int units(int K) { return K / 256 * LANES; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        return {W + (u64)row * (K / 256) * 144};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        const u8* block = r.blocks + (u64)(unit / LANES) * 144;
        Fragment f;
        f.header = load_weights_16(block);
        f.at = unit % LANES;
#pragma unroll
        for (int v = 0; v < 8 / LANES; ++v) f.q[v] = load_weights_16(block + 16 + (f.at * (8 / LANES) + v) * 16);
        return f;
    }
    static __device__ __forceinline__ Fragment nothing() {
        Fragment f;
        f.header = make_uint4(0, 0, 0, 0);
        f.at = 0;
#pragma unroll
        for (int v = 0; v < 8 / LANES; ++v) f.q[v] = make_uint4(0, 0, 0, 0);
        return f;
    }
    // A vector of codes holds 16 weights of an even sub-block (low nibbles) and 16 of the next (high nibbles).
    static __device__ __forceinline__ Activations activations(const u8* x, int K, int unit) {
        const int vector = unit % LANES * (8 / LANES), even = unit / LANES * 8 + vector / 2 * 2;
        Activations a;
#pragma unroll
        for (int v = 0; v < 8 / LANES; ++v) {
            const int column = even * 32 + (vector + v) % 2 * 16;
            a.low[v] = load_16(x + column);
            a.high[v] = load_16(x + column + 32);
        }
        const float2* st = (const float2*)(x + K) + even;
        a.first = st[0];
        a.second = st[1];
        // Where two lanes share the sub-blocks, the one with their first halves subtracts the minima.
        if (LANES == 8 && vector % 2 == 1) a.first.y = a.second.y = 0.0f;
        return a;
    }
    static __device__ __forceinline__ float dot(const Fragment& w, const Activations& a) {
        const int pair = w.at * (8 / LANES) / 2, half = pair % 2 * 16;
        const u32 y = w.header.y >> half, z = w.header.z >> half, t = w.header.w >> half;
        // Scales and minima of two neighbouring sub-blocks at once. Those of the last four are split between two bytes.
        const u32 sc = pair < 2 ? y & 0x3f3fu : (t & 0x0f0fu) | (y >> 2 & 0x3030u);
        const u32 mn = pair < 2 ? z & 0x3f3fu : (t >> 4 & 0x0f0fu) | (z >> 2 & 0x3030u);
        int even = 0, odd = 0;
#pragma unroll
        for (int v = 0; v < 8 / LANES; ++v) {
            const uint4 q = w.q[v];
            even = dot16(make_uint4(q.x & LOW_NIBBLES, q.y & LOW_NIBBLES, q.z & LOW_NIBBLES, q.w & LOW_NIBBLES),
                         a.low[v], even);
            odd = dot16(make_uint4(q.x >> 4 & LOW_NIBBLES, q.y >> 4 & LOW_NIBBLES, q.z >> 4 & LOW_NIBBLES,
                                   q.w >> 4 & LOW_NIBBLES), a.high[v], odd);
        }
        const float2 d = f16x2_to_f32(w.header.x);
        const float products = (float)(sc & 255u) * (a.first.x * (float)even) + (float)(sc >> 8 & 255u) * (a.second.x * (float)odd);
        const float minima = (float)(mn & 255u) * a.first.y + (float)(mn >> 8 & 255u) * a.second.y;
        return d.x * products - d.y * minima;
    }
};
#endif

// Q8_0 in planes; a unit is 16 weights, half of a block, so that a warp reads 512 contiguous bytes.
struct Q80Planes {
    struct Fragment { uint4 q; u32 d; };
    struct Row { const u8 *q, *d; };
    struct Activations { uint4 x; float s; };
    static __device__ __forceinline__ int units(int K) { return K / 16; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        return {W + (u64)row * K, W + align_256((u64)N * K) + (u64)row * (K / 32) * 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_2(r.d + unit / 2 * 2)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0}; }
    static __device__ __forceinline__ Activations activations(const u8* x, int K, int unit) {
        return {load_16(x + unit * 16), *(const float*)(x + K + unit / 2 * 8)};
    }
    static __device__ __forceinline__ float dot(const Fragment& w, const Activations& a) {
        return f16_to_f32((u16)w.d) * (a.s * (float)dot16(w.q, a.x, 0));
    }
};

// TQ2_0 in planes; a unit is 64 weights in 16 bytes. Codes are 0, 1, 2 for -1, 0, 1: their sum is subtracted once.
struct TQ20Planes {
    struct Fragment { uint4 q; u32 d; };
    struct Row { const u8 *q, *d; };
    struct Activations { Group32 first, second; };
    static __device__ __forceinline__ int units(int K) { return K / 64; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 at = (u64)row * (K / 64);
        return {W + at * 16, W + align_256((u64)N * (K / 64) * 16) + at / 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_2(r.d + unit / 4 * 2)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0}; }
    static __device__ __forceinline__ Activations activations(const u8* x, int K, int unit) {
        return {group_32(x, K, unit * 2), group_32(x, K, unit * 2 + 1)};
    }
    template <int PLANE>
    static __device__ __forceinline__ uint4 codes(uint4 q) {
        const u32 CODE = 0x03030303u;
        return make_uint4(q.x >> (2 * PLANE) & CODE, q.y >> (2 * PLANE) & CODE, q.z >> (2 * PLANE) & CODE,
                          q.w >> (2 * PLANE) & CODE);
    }
    static __device__ __forceinline__ float dot(const Fragment& w, const Activations& a) {
        const int first = dot16(codes<1>(w.q), a.first.high, dot16(codes<0>(w.q), a.first.low, 0));
        const int second = dot16(codes<3>(w.q), a.second.high, dot16(codes<2>(w.q), a.second.low, 0));
        const float products = a.first.s * (float)first - a.first.t + (a.second.s * (float)second - a.second.t);
        return f16_to_f32((u16)w.d) * products;
    }
};

#endif
