// Weights of the layout `planes`, or floats as the file has them, as 16-bit floats, 16 at a time: for products on tensor cores
// and for their dequantisation.
//
// A unit is 16 weights that lie in neighbouring bytes: 8 of codes, 16 with Q8_0, 32 of floats. Unit u of a matrix counts through
// all rows, K/16 a row; units 2b and 2b + 1 are the halves of block b of 32. It falls into two runs of 8 neighbouring
// weights, which start `run_at` columns behind the start of the row:
//
//   codes of 4 bits and more   lower nibbles: columns 8h .. 8h + 7 of the block, upper nibbles: 16 columns on   (h = u % 2)
//   TQ2_0                      the same: two units share 8 bytes, each takes one nibble of them, which is two codes
//   Q8_0, floats               columns 16h .. 16h + 7 of the block, and the 8 behind them
//
// Offsets within a plane are of 32 bits, which a load adds to the plane's address by itself: N * K stays below 2^32.
//
// The planes are those of include/planes.cuh and gemv_k/formats.cuh. Every weight is rounded once, to the nearest f16; a run is
// four words of two.
#ifndef EDGELLM_GEMM_WEIGHTS_CUH
#define EDGELLM_GEMM_WEIGHTS_CUH

#include "half.cuh"

#if !defined(FORMAT)
#error "FORMAT must be set by the build, to Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K, TQ2_0, F16 or BF16"
#endif

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

// The nibbles of a word that belong to a run, a byte each.
template <int RUN>
__device__ __forceinline__ u32 nibbles(u32 word) {
    return (RUN == 0 ? word : word >> 4) & 0x0f0f0f0fu;
}

// The fifth bits of word WORD of a run: bit g of byte i of the upper bits, shifted by 2 g for the half of the block, is that
// of column 4 g + i.
template <int RUN, int WORD>
__device__ __forceinline__ u32 fifth_bits(u32 high) {
    return (RUN == 0 ? high << (4 - WORD) : high >> WORD) & 0x10101010u;
}

// Formats whose codes are nibbles in the order of the file.
struct NibbleRuns {
    static __device__ __forceinline__ int run_at(int unit, int run) { return unit / 2 * 32 + run * 16 + unit % 2 * 8; }
};

struct HalvesOf_Q4_0 : NibbleRuns {
    struct Piece { uint2 q; u32 d; };
    struct Base { const u8 *q, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        return {W, W + next_plane((u64)N * (K / 32) * 16)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_8(b.q + unit * 8u), load_kept_2(b.d + unit / 2 * 2u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        const u32 d = both_halves(p.d);
        scaled_halves<8>(nibbles<RUN>(p.q.x), d, out);
        scaled_halves<8>(nibbles<RUN>(p.q.y), d, out + 2);
    }
};

struct HalvesOf_Q4_1 : NibbleRuns {
    struct Piece { uint2 q; u32 d_m; };
    struct Base { const u8 *q, *d_m; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        return {W, W + next_plane((u64)N * (K / 32) * 16)};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_8(b.q + unit * 8u), load_kept_4(b.d_m + unit / 2 * 4u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        const u32 d = both_halves(p.d_m), m = both_halves(p.d_m >> 16);
        shifted_halves(nibbles<RUN>(p.q.x), d, m, out);
        shifted_halves(nibbles<RUN>(p.q.y), d, m, out + 2);
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
        const u32 block = unit / 2;
        return {load_weights_8(b.q + unit * 8u), load_kept_4(b.high + block * 4u), load_kept_2(b.d + block * 2u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int half, u32 (&out)[4]) {
        const u32 d = both_halves(p.d), h = p.high >> half * 2;
        scaled_halves<16>(nibbles<RUN>(p.q.x) | fifth_bits<RUN, 0>(h), d, out);
        scaled_halves<16>(nibbles<RUN>(p.q.y) | fifth_bits<RUN, 1>(h), d, out + 2);
    }
};

struct HalvesOf_Q8_0 {
    struct Piece { uint4 q; u32 d; };
    struct Base { const u8 *q, *d; };
    static __device__ __forceinline__ int run_at(int unit, int run) { return unit * 16 + run * 8; }
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) { return {W, W + next_plane((u64)N * K)}; }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        return {load_weights_16(b.q + unit * 16u), load_kept_2(b.d + unit / 2 * 2u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint4(0, 0, 0, 0), 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        // With its sign bit turned over a code is itself plus 128.
        const u32 d = both_halves(p.d);
        scaled_halves<128>((RUN == 0 ? p.q.x : p.q.z) ^ TOP_BITS, d, out);
        scaled_halves<128>((RUN == 0 ? p.q.y : p.q.w) ^ TOP_BITS, d, out + 2);
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
        return {load_weights_8(b.q + unit * 8u), load_kept_2(b.sc + unit / 2 * 2u),
                load_kept_4(b.d + unit / 16 * 4u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        const float2 d = f16x2_to_f32(p.d);
        const float s = d.x * (float)(128u * (p.sc_mn & 255u)), m = -d.y * (float)(p.sc_mn >> 8);
        wide_halves<0>(nibbles<RUN>(p.q.x) | TOP_BITS, s, m, out);
        wide_halves<0>(nibbles<RUN>(p.q.y) | TOP_BITS, s, m, out + 2);
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
        const u32 block = unit / 2;
        return {load_weights_8(b.q + unit * 8u), load_kept_4(b.high + block * 4u), load_kept_2(b.sc + block * 2u),
                load_kept_4(b.d + unit / 16 * 4u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0, 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int half, u32 (&out)[4]) {
        const float2 d = f16x2_to_f32(p.d);
        const float s = d.x * (float)(128u * (p.sc_mn & 255u)), m = -d.y * (float)(p.sc_mn >> 8);
        const u32 h = p.high >> half * 2;
        wide_halves<0>(nibbles<RUN>(p.q.x) | fifth_bits<RUN, 0>(h) | TOP_BITS, s, m, out);
        wide_halves<0>(nibbles<RUN>(p.q.y) | fifth_bits<RUN, 1>(h) | TOP_BITS, s, m, out + 2);
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
        return {load_weights_8(b.q + unit * 8u), load_weights_4(b.high + unit * 4u),
                load_kept_2(b.sc + unit / 2 * 2u), load_kept_2(b.d + unit / 16 * 2u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0, 0, 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        // The upper bits of a unit are one word: bits 0-1 and 2-3 of its bytes are those of the first run, the rest the second's.
        const u32 UPPER_BITS = 0x30303030u, h = RUN == 0 ? p.high << 4 : p.high;
        const float s = f16_to_f32((u16)p.d) * 128.0f * (float)(i8)(u8)(p.sc >> (RUN * 8));
        wide_halves<32>(nibbles<RUN>(p.q.x) | (h & UPPER_BITS) | TOP_BITS, s, 0.0f, out);
        wide_halves<32>(nibbles<RUN>(p.q.y) | (h >> 2 & UPPER_BITS) | TOP_BITS, s, 0.0f, out + 2);
    }
};

struct HalvesOf_TQ2_0 : NibbleRuns {
    struct Piece { uint2 q; u32 d; };
    struct Base { const u8 *q, *d; };
    static __device__ __forceinline__ Base base(const u8* W, int N, int K) {
        return {W, W + next_plane((u64)N * (K / 4))};
    }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        // The nibbles of this unit come to the bottom of their bytes; what is above them is masked later.
        const u32 nibble = unit / 2 % 2 * 4;
        const uint2 q = load_weights_8(b.q + unit / 4 * 16u + unit % 2 * 8u);
        return {make_uint2(q.x >> nibble, q.y >> nibble), load_kept_2(b.d + unit / 16 * 2u)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint2(0, 0), 0}; }
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        const u32 d = both_halves(p.d), CODES = 0x03030303u;
        scaled_halves<1>(p.q.x >> (RUN * 2) & CODES, d, out);
        scaled_halves<1>(p.q.y >> (RUN * 2) & CODES, d, out + 2);
    }
};

// Rows of floats of 16 bits.
struct FloatRuns {
    struct Piece { uint4 first, second; };
    struct Base { const u8* w; };
    static __device__ __forceinline__ int run_at(int unit, int run) { return unit * 16 + run * 8; }
    static __device__ __forceinline__ Base base(const u8* W, int, int) { return {W}; }
    static __device__ __forceinline__ Piece load(const Base& b, u32 unit) {
        const u8* at = b.w + (u64)unit * 32;
        return {load_weights_16(at), load_weights_16(at + 16)};
    }
    static __device__ __forceinline__ Piece nothing() { return {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)}; }
};

struct HalvesOf_F16 : FloatRuns {
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        const uint4 run = RUN == 0 ? p.first : p.second;
        out[0] = run.x;
        out[1] = run.y;
        out[2] = run.z;
        out[3] = run.w;
    }
};

// A bfloat16 is the upper half of an f32.
__device__ __forceinline__ u32 halves_of_bf16(u32 pair) {
    return pack_halves(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

struct HalvesOf_BF16 : FloatRuns {
    template <int RUN>
    static __device__ __forceinline__ void expand(const Piece& p, int, u32 (&out)[4]) {
        const uint4 run = RUN == 0 ? p.first : p.second;
        out[0] = halves_of_bf16(run.x);
        out[1] = halves_of_bf16(run.y);
        out[2] = halves_of_bf16(run.z);
        out[3] = halves_of_bf16(run.w);
    }
};

#define HALVES_OF_NAMES(format) HalvesOf_##format
#define HALVES_OF(format) HALVES_OF_NAMES(format)
typedef HALVES_OF(FORMAT) Weights;

#endif
