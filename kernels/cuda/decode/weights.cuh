// The weight formats of the decode kernels: a Format of gemv_k/row_groups.cuh for each name that FORMAT may have, and how
// its activations lie in shared memory.
//
// To Q4_K, Q5_K, Q6_K and Q8_0 of gemv_k/formats.cuh this adds the planes of include/planes.cuh:
//
//   Q4_0  codes [N, K/32] x 16 B (byte j: weight j low, j + 16 high)   d f16 [N, K/32]
//   Q4_1  codes as Q4_0                                                d and m, f16 [N, K/32] x 4 B
//   Q5_0  codes as Q4_0, fifth bits [N, K/32] x 4 B as Q5_K            d f16 [N, K/32]
//
// and rows of F16 and BF16. Here a Row is that of row 0, and a unit counts through the whole matrix: one base address for each plane, whatever the
// number of rows that a lane works on. N * K stays below 2^31.
#ifndef EDGELLM_DECODE_WEIGHTS_CUH
#define EDGELLM_DECODE_WEIGHTS_CUH

#include "decode/names.cuh"
#include "gemv_k/formats.cuh"

struct Q40Planes {
    struct Fragment { uint4 q; u32 d; };
    struct Row { const u8 *q, *d; };
    typedef Group32 Activations;
    static __device__ __forceinline__ int units(int K) { return K / 32; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 blocks = (u64)N * (K / 32), at = (u64)row * (K / 32);
        return {W + at * 16, W + align_256(blocks * 16) + at * 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_2(r.d + unit * 2)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0}; }
    static __device__ __forceinline__ Group32 activations(const u8* x, int K, int unit) { return group_32(x, K, unit); }
    static __device__ __forceinline__ float dot(const Fragment& w, const Group32& a) {
        return f16_to_f32((u16)w.d) * fmaf(a.s, (float)dot_nibbles(w.q, a), -8.0f * a.t);
    }
};

struct Q41Planes {
    struct Fragment { uint4 q; u32 d_m; };
    struct Row { const u8 *q, *d_m; };
    typedef Group32 Activations;
    static __device__ __forceinline__ int units(int K) { return K / 32; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 blocks = (u64)N * (K / 32), at = (u64)row * (K / 32);
        return {W + at * 16, W + align_256(blocks * 16) + at * 4};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_4(r.d_m + unit * 4)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0}; }
    static __device__ __forceinline__ Group32 activations(const u8* x, int K, int unit) { return group_32(x, K, unit); }
    static __device__ __forceinline__ float dot(const Fragment& w, const Group32& a) {
        const float2 d = f16x2_to_f32(w.d_m);
        return fmaf(d.y, a.t, d.x * (a.s * (float)dot_nibbles(w.q, a)));
    }
};

struct Q50Planes {
    struct Fragment { uint4 q; u32 high, d; };
    struct Row { const u8 *q, *high, *d; };
    typedef Group32 Activations;
    static __device__ __forceinline__ int units(int K) { return K / 32; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        const u64 blocks = (u64)N * (K / 32), at = (u64)row * (K / 32);
        const u64 high = align_256(blocks * 16), d = high + align_256(blocks * 4);
        return {W + at * 16, W + high + at * 4, W + d + at * 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.q + unit * 16), load_weights_4(r.high + unit * 4), load_weights_2(r.d + unit * 2)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0), 0, 0}; }
    static __device__ __forceinline__ Group32 activations(const u8* x, int K, int unit) { return group_32(x, K, unit); }
    static __device__ __forceinline__ float dot(const Fragment& w, const Group32& a) {
        return f16_to_f32((u16)w.d) * fmaf(a.s, (float)dot_five_bits(w.q, w.high, a), -16.0f * a.t);
    }
};

// Activations in shared memory: K int8, then a pair of words for each group of 32. What a lane reads at once are 16 bytes,
// and neighbouring lanes read neighbouring units: so that no two of them meet in a bank, formats whose unit is 32 weights
// have the first halves of all groups before all second halves.
template <class Activations>
struct Staged;

template <>
struct Staged<Group32> {
    // Where the word of codes `word` of group `group` lies; a word is 4 codes.
    static __device__ __forceinline__ int place(int K, int group, int word) {
        return word / 4 * (K / 2) + group * 16 + word % 4 * 4;
    }
    // What is kept of a group besides its codes: its scale and what the format makes of the sums of its halves.
    static __device__ __forceinline__ float2 pair(float s, int first, int second) {
        return make_float2(s, s * (float)(first + second));
    }
    // The pair of a group of a slab in global memory.
    static __device__ __forceinline__ float2 copied_pair(const u8* x, int K, int group) {
        const uint2 st = load_8(x + K + group * 8);
        return make_float2(__uint_as_float(st.x), __uint_as_float(st.y));
    }
    static __device__ __forceinline__ Group32 load(const u8* slab, int K, int unit) {
        const float2 pair = ((const float2*)(slab + K))[unit];
        return {*(const uint4*)(slab + unit * 16), *(const uint4*)(slab + K / 2 + unit * 16), pair.x, pair.y};
    }
};

template <>
struct Staged<Q6KPlanes::Activations> {
    static __device__ __forceinline__ int place(int K, int group, int word) {
        return Staged<Group32>::place(K, group, word);
    }
    // A half has 16 codes of 127 at most.
    static __device__ __forceinline__ float2 pair(float s, int first, int second) {
        return make_float2(s, __uint_as_float((u32)(first & 0xffff) | (u32)second << 16));
    }
    static __device__ __forceinline__ float2 copied_pair(const u8* x, int K, int group) {
        const uint4 ones = make_uint4(0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u);
        const int first = dot16(ones, load_16(x + group * 32), 0), second = dot16(ones, load_16(x + group * 32 + 16), 0);
        return pair(Staged<Group32>::copied_pair(x, K, group).x, first, second);
    }
    static __device__ __forceinline__ Q6KPlanes::Activations load(const u8* slab, int K, int unit) {
        const float2 pair = ((const float2*)(slab + K))[unit];
        const int halves = __float_as_int(pair.y);
        return {*(const uint4*)(slab + unit * 16), *(const uint4*)(slab + K / 2 + unit * 16), pair.x,
                -32 * (int)(i16)(halves & 0xffff), -32 * (halves >> 16)};
    }
};

template <>
struct Staged<Q80Planes::Activations> {
    static __device__ __forceinline__ int place(int K, int group, int word) {
        (void)K;
        return group * 32 + word * 4;
    }
    static __device__ __forceinline__ float2 pair(float s, int first, int second) {
        return Staged<Group32>::pair(s, first, second);
    }
    static __device__ __forceinline__ float2 copied_pair(const u8* x, int K, int group) {
        return Staged<Group32>::copied_pair(x, K, group);
    }
    static __device__ __forceinline__ Q80Planes::Activations load(const u8* slab, int K, int unit) {
        return {*(const uint4*)(slab + unit * 16), ((const float2*)(slab + K))[unit / 2].x};
    }
};

// Rows of 16-bit floats as the file has them, against activations in 32-bit floats; a unit is 8 weights.
template <bool BRAIN>
struct HalfRows {
    struct Fragment { uint4 w; };
    struct Row { const u8* w; };
    struct Activations { float4 low, high; };
    static __device__ __forceinline__ int units(int K) { return K / 8; }
    static __device__ __forceinline__ Row row(const u8* W, int N, int K, int row) {
        (void)N;
        return {W + (u64)row * K * 2};
    }
    static __device__ __forceinline__ Fragment load(const Row& r, int unit) {
        return {load_weights_16(r.w + (i64)unit * 16)};
    }
    static __device__ __forceinline__ Fragment nothing() { return {make_uint4(0, 0, 0, 0)}; }
    static __device__ __forceinline__ Activations activations(const u8* x, int K, int unit) {
        (void)K;
        return {((const float4*)x)[unit * 2], ((const float4*)x)[unit * 2 + 1]};
    }
    static __device__ __forceinline__ float2 pair(u32 word) {
        if (BRAIN) return make_float2(bf16_to_f32((u16)(word & 0xffffu)), bf16_to_f32((u16)(word >> 16)));
        return f16x2_to_f32(word);
    }
    static __device__ __forceinline__ float dot(const Fragment& w, const Activations& a) {
        const float2 p = pair(w.w.x), q = pair(w.w.y), r = pair(w.w.z), s = pair(w.w.w);
        const float low = fmaf(q.y, a.low.w, fmaf(q.x, a.low.z, fmaf(p.y, a.low.y, p.x * a.low.x)));
        const float high = fmaf(s.y, a.high.w, fmaf(s.x, a.high.z, fmaf(r.y, a.high.y, r.x * a.high.x)));
        return low + high;
    }
};

// Floats in shared memory: the first four of every unit, then the second four.
template <class Activations>
struct StagedFloats {
    // Where elements `at` to `at + 3` lie.
    static __device__ __forceinline__ int place(int K, int at) { return at % 8 / 4 * (K * 2) + at / 8 * 16; }
    static __device__ __forceinline__ Activations load(const u8* slab, int K, int unit) {
        return {*(const float4*)(slab + unit * 16), *(const float4*)(slab + K * 2 + unit * 16)};
    }
};

typedef Q40Planes Weights_Q4_0;
typedef Q41Planes Weights_Q4_1;
typedef Q50Planes Weights_Q5_0;
typedef Q80Planes Weights_Q8_0;
typedef Q4KPlanes Weights_Q4_K;
typedef Q5KPlanes Weights_Q5_K;
typedef Q6KPlanes Weights_Q6_K;

typedef HalfRows<false> Weights_F16;
typedef HalfRows<true> Weights_BF16;

typedef JOINED(Weights_, FORMAT) Weights;
#if FLOATS
typedef StagedFloats<Weights::Activations> Slab;
#else
typedef Staged<Weights::Activations> Slab;
#endif

#endif
