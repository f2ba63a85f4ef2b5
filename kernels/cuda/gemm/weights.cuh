// Weights of the layout `planes` as 16-bit floats, 16 at a time: for products on tensor cores and for their dequantisation.
//
// A unit is 16 weights that lie in neighbouring bytes of codes: 8 bytes, or 16 with Q8_0. Unit u of a matrix counts through
// all rows, K/16 a row; units 2b and 2b + 1 are the halves of block b of 32. It falls into two runs of 8 neighbouring
// weights, which start `run_at` columns behind the start of the row:
//
//   codes of 4 bits and more   lower nibbles: columns 8h .. 8h + 7 of the block, upper nibbles: 16 columns on   (h = u % 2)
//   Q8_0                       columns 16h .. 16h + 7 of the block, and the 8 behind them
//
// The planes are those of include/planes.cuh and gemv_k/formats.cuh. Every weight is rounded once, to the nearest f16.
#ifndef EDGELLM_GEMM_WEIGHTS_CUH
#define EDGELLM_GEMM_WEIGHTS_CUH

#include "half.cuh"

#if !defined(FORMAT)
#error "FORMAT must be set by the build, to Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K or Q6_K"
#endif

#define NIBBLES 0x0f0f0f0fu
#define FIFTH_BITS 0x10101010u

// Where the next plane starts.
__device__ __forceinline__ u64 next_plane(u64 bytes) {
    return (bytes + 255) / 256 * 256;
}

// Loads of scales and upper bits, which a line holds for many units: they stay in L1. (PTX: ld.global.nc)
__device__ __forceinline__ u32 load_kept_4(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<u32>(at);
#else
    u32 v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(at));
    return v;
#endif
}

__device__ __forceinline__ u32 load_kept_2(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<u16>(at);
#else
    u16 v;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(at));
    return v;
#endif
}

// Two pairs of f16, each 1024 plus a byte of the word: 0x6400 is 1024, whose last place is worth one.
__device__ __forceinline__ void bytes_behind_1024(u32 word, u32& first, u32& second) {
    first = __byte_perm(word, 0x64646464u, 0x4140);
    second = __byte_perm(word, 0x64646464u, 0x4342);
}

// The f16 of -(1024 + OFFSET), twice: what turns the former into code - OFFSET, exactly.
template <int OFFSET>
__device__ __forceinline__ u32 minus_1024() {
    return (0xe400u + OFFSET) * 0x10001u;
}

// Four bytes as (code - OFFSET) * scale + shift, rounded once: the codes are exact.
template <int OFFSET>
__device__ __forceinline__ void scaled_halves(u32 codes, u32 scale, u32* out) {
    u32 first, second;
    bytes_behind_1024(codes, first, second);
    out[0] = multiply_halves(add_halves(first, minus_1024<OFFSET>()), scale);
    out[1] = multiply_halves(add_halves(second, minus_1024<OFFSET>()), scale);
}

__device__ __forceinline__ void shifted_halves(u32 codes, u32 scale, u32 shift, u32* out) {
    u32 first, second;
    bytes_behind_1024(codes, first, second);
    out[0] = fma_halves(add_halves(first, minus_1024<0>()), scale, shift);
    out[1] = fma_halves(add_halves(second, minus_1024<0>()), scale, shift);
}

// Byte I of a word whose bytes have their top bit set, as 1 + (the lower 7 bits) / 128: they become the upper bits of a
// fraction under the exponent of one.
template <int I>
__device__ __forceinline__ float fraction(u32 word) {
    return __uint_as_float(__byte_perm(word, 0x3f000000u, 0x7044 | I << 8));
}

#define TOP_BITS 0x80808080u

// Four codes below 128, with their top bits set, as (code - OFFSET) * scale + shift in f32, then rounded. `scale_128` is
// 128 times the scale. The difference is exact, so that a large scale leaves a small weight as it is.
template <int OFFSET>
__device__ __forceinline__ void wide_halves(u32 codes, float scale_128, float shift, u32* out) {
    const float zero = -1.0f - OFFSET / 128.0f;
    out[0] = pack_halves(fmaf(fraction<0>(codes) + zero, scale_128, shift), fmaf(fraction<1>(codes) + zero, scale_128, shift));
    out[1] = pack_halves(fmaf(fraction<2>(codes) + zero, scale_128, shift), fmaf(fraction<3>(codes) + zero, scale_128, shift));
}

// Formats whose codes are nibbles in the order of the file.
struct NibbleRuns {
    static const bool HALVES = true;
    static __device__ __forceinline__ int run_at(int unit, int run) { return unit / 2 * 32 + run * 16 + unit % 2 * 8; }
};

struct HalvesOf_Q4_0 : NibbleRuns {
    struct Piece { uint2 q; u32 d; };
    struct Base { const u8 *q, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        return {W, W + next_plane((u64)N * (K / 32) * 16)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_8(b.q + (u64)unit * 8), load_kept_2(b.d + (u64)(unit / 2) * 2)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[8]) {
        const u32 d = both_halves(p.d);
        scaled_halves<8>(p.q.x & NIBBLES, d, out);
        scaled_halves<8>(p.q.y & NIBBLES, d, out + 2);
        scaled_halves<8>(p.q.x >> 4 & NIBBLES, d, out + 4);
        scaled_halves<8>(p.q.y >> 4 & NIBBLES, d, out + 6);
    }
};

struct HalvesOf_Q4_1 : NibbleRuns {
    struct Piece { uint2 q; u32 d_m; };
    struct Base { const u8 *q, *d_m; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        return {W, W + next_plane((u64)N * (K / 32) * 16)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_8(b.q + (u64)unit * 8), load_kept_4(b.d_m + (u64)(unit / 2) * 4)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[8]) {
        const u32 d = both_halves(p.d_m), m = both_halves(p.d_m >> 16);
        shifted_halves(p.q.x & NIBBLES, d, m, out);
        shifted_halves(p.q.y & NIBBLES, d, m, out + 2);
        shifted_halves(p.q.x >> 4 & NIBBLES, d, m, out + 4);
        shifted_halves(p.q.y >> 4 & NIBBLES, d, m, out + 6);
    }
};

struct HalvesOf_Q5_0 : NibbleRuns {
    struct Piece { uint2 q; u32 high, d; };
    struct Base { const u8 *q, *high, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        const u64 blocks = (u64)N * (K / 32), high = next_plane(blocks * 16);
        return {W, W + high, W + high + next_plane(blocks * 4)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        const u64 block = unit / 2;
        return {load_weights_8(b.q + (u64)unit * 8), load_kept_4(b.high + block * 4), load_kept_2(b.d + block * 2)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int half, u32 (&out)[8]) {
        // Bit g of byte i is the fifth bit of column 4 g + i.
        const u32 d = both_halves(p.d), h = p.high >> half * 2;
        scaled_halves<16>((p.q.x & NIBBLES) | (h << 4 & FIFTH_BITS), d, out);
        scaled_halves<16>((p.q.y & NIBBLES) | (h << 3 & FIFTH_BITS), d, out + 2);
        scaled_halves<16>((p.q.x >> 4 & NIBBLES) | (h & FIFTH_BITS), d, out + 4);
        scaled_halves<16>((p.q.y >> 4 & NIBBLES) | (h >> 1 & FIFTH_BITS), d, out + 6);
    }
};

struct HalvesOf_Q8_0 {
    static const bool HALVES = false;
    struct Piece { uint4 q; u32 d; };
    struct Base { const u8 *q, *d; };
    static __device__ __forceinline__ int run_at(int unit, int run) { return unit * 16 + run * 8; }
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) { return {W, W + next_plane((u64)N * K)}; }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_16(b.q + (u64)unit * 16), load_kept_2(b.d + (u64)(unit / 2) * 2)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint4(0, 0, 0, 0), 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[8]) {
        // With its sign bit turned over a code is itself plus 128.
        const u32 d = both_halves(p.d);
        scaled_halves<128>(p.q.x ^ TOP_BITS, d, out);
        scaled_halves<128>(p.q.y ^ TOP_BITS, d, out + 2);
        scaled_halves<128>(p.q.z ^ TOP_BITS, d, out + 4);
        scaled_halves<128>(p.q.w ^ TOP_BITS, d, out + 6);
    }
};

struct HalvesOf_Q4_K : NibbleRuns {
    struct Piece { uint2 q; u32 sc_mn, d; };
    struct Base { const u8 *q, *sc, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        const u64 blocks = (u64)N * (K / 32), sc = next_plane(blocks * 16);
        return {W, W + sc, W + sc + next_plane(blocks * 2)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_8(b.q + (u64)unit * 8), load_kept_2(b.sc + (u64)(unit / 2) * 2),
                load_kept_4(b.d + (u64)(unit / 16) * 4)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[8]) {
        const float2 d = f16x2_to_f32(p.d);
        const float s = d.x * (float)(128u * (p.sc_mn & 255u)), m = -d.y * (float)(p.sc_mn >> 8);
        wide_halves<0>((p.q.x & NIBBLES) | TOP_BITS, s, m, out);
        wide_halves<0>((p.q.y & NIBBLES) | TOP_BITS, s, m, out + 2);
        wide_halves<0>((p.q.x >> 4 & NIBBLES) | TOP_BITS, s, m, out + 4);
        wide_halves<0>((p.q.y >> 4 & NIBBLES) | TOP_BITS, s, m, out + 6);
    }
};

struct HalvesOf_Q5_K : NibbleRuns {
    struct Piece { uint2 q; u32 high, sc_mn, d; };
    struct Base { const u8 *q, *high, *sc, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        const u64 blocks = (u64)N * (K / 32), high = next_plane(blocks * 16), sc = high + next_plane(blocks * 4);
        return {W, W + high, W + sc, W + sc + next_plane(blocks * 2)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        const u64 block = unit / 2;
        return {load_weights_8(b.q + (u64)unit * 8), load_kept_4(b.high + block * 4), load_kept_2(b.sc + block * 2),
                load_kept_4(b.d + (u64)(unit / 16) * 4)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0, 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int half, u32 (&out)[8]) {
        const float2 d = f16x2_to_f32(p.d);
        const float s = d.x * (float)(128u * (p.sc_mn & 255u)), m = -d.y * (float)(p.sc_mn >> 8);
        const u32 h = p.high >> half * 2;
        wide_halves<0>((p.q.x & NIBBLES) | (h << 4 & FIFTH_BITS) | TOP_BITS, s, m, out);
        wide_halves<0>((p.q.y & NIBBLES) | (h << 3 & FIFTH_BITS) | TOP_BITS, s, m, out + 2);
        wide_halves<0>((p.q.x >> 4 & NIBBLES) | (h & FIFTH_BITS) | TOP_BITS, s, m, out + 4);
        wide_halves<0>((p.q.y >> 4 & NIBBLES) | (h >> 1 & FIFTH_BITS) | TOP_BITS, s, m, out + 6);
    }
};

struct HalvesOf_Q6_K : NibbleRuns {
    struct Piece { uint2 q; u32 high, sc, d; };
    struct Base { const u8 *q, *high, *sc, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        const u64 blocks = (u64)N * (K / 32), high = next_plane(blocks * 16), sc = high + next_plane(blocks * 8);
        return {W, W + high, W + sc, W + sc + next_plane(blocks * 2)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_8(b.q + (u64)unit * 8), load_weights_4(b.high + (u64)unit * 4),
                load_kept_2(b.sc + (u64)(unit / 2) * 2), load_kept_2(b.d + (u64)(unit / 16) * 2)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0, 0}; }
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[8]) {
        // The upper bits of a unit are one word: bits 0-1 and 2-3 of its bytes are those of the first run, the rest the second's.
        const u32 SIXTH_BITS = 0x30303030u, h = p.high;
        const float d = f16_to_f32((u16)p.d) * 128.0f;
        const float first = d * (float)(i8)(p.sc & 255u), second = d * (float)(i8)(p.sc >> 8);
        wide_halves<32>((p.q.x & NIBBLES) | (h << 4 & SIXTH_BITS) | TOP_BITS, first, 0.0f, out);
        wide_halves<32>((p.q.y & NIBBLES) | (h << 2 & SIXTH_BITS) | TOP_BITS, first, 0.0f, out + 2);
        wide_halves<32>((p.q.x >> 4 & NIBBLES) | (h & SIXTH_BITS) | TOP_BITS, second, 0.0f, out + 4);
        wide_halves<32>((p.q.y >> 4 & NIBBLES) | (h >> 2 & SIXTH_BITS) | TOP_BITS, second, 0.0f, out + 6);
    }
};

#define HALVES_OF_NAMES(format) HalvesOf_##format
#define HALVES_OF(format) HALVES_OF_NAMES(format)
typedef HALVES_OF(FORMAT) Weights;

#endif
