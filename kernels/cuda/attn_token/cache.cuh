// Keys and values of a layer as attention reads them: [KV_HEADS, MAX_LEN, DIM] in f16, or in int8 with a scale for each head
// and position. The scale of a key goes on its score and that of a value on its weight, so that codes are used as they are.
#ifndef EDGELLM_CACHE_CUH
#define EDGELLM_CACHE_CUH

#include "dialect.cuh"

// The value of element `at` of a cache, apart from its scale.
__device__ __forceinline__ float element(const u8* cache, u64 at, int kv) {
    return kv == 16 ? f16_to_f32(((const u16*)cache)[at]) : (float)((const i8*)cache)[at];
}

// The scale of the key or value in slot `at`, counted over heads and positions.
__device__ __forceinline__ float scale_at(const float* scales, u64 at, int kv) {
    return kv == 16 ? 1.0f : scales[at];
}

// A scale that other threads of the block may have read the neighbours of while it was still being written: past L1, which
// holds whole sectors. (PTX: ld)
__device__ __forceinline__ float load_scale(const float* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<float>(at);
#else
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(at) : "memory");
    return v;
#endif
}

// Asks for `bytes` bytes, a multiple of 16 as the address is one, to come into L2; nothing on devices that cannot be asked for
// more than a line at once. (PTX: cp.async.bulk.prefetch)
__device__ __forceinline__ void bring_to_l2(const void* at, int bytes) {
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(at), "r"(bytes) : "memory");
#else
    (void)at;
    (void)bytes;
#endif
}

// 2 to the power of x to about two units in the last place, zero below 2^-126. (PTX: ex2.approx)
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef EDGELLM_EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// Four int8 as two words of two f16, exact: under the exponent of 1024 the lowest bits of an f16 count in ones.
// (PTX: sub.f16x2)
__device__ __forceinline__ uint2 i8x4_to_f16(u32 codes) {
#ifdef EDGELLM_EMULATED
    u32 words[2];
    for (int i = 0; i < 2; ++i) {
        words[i] = f32_to_f16x2((float)(i8)(u8)(codes >> 16 * i), (float)(i8)(u8)(codes >> (16 * i + 8)));
    }
    return make_uint2(words[0], words[1]);
#else
    const u32 raised = codes ^ 0x80808080u;
    uint2 words = make_uint2(__byte_perm(raised, 0x64646464u, 0x4140), __byte_perm(raised, 0x64646464u, 0x4342));
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(words.x) : "r"(0x64806480u));  // 1024 + 128, twice.
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(words.y) : "r"(0x64806480u));
    return words;
#endif
}

// Eight elements in a row, apart from their scale: what a lane loads of a key or value at once. `at` is a multiple of 8.
template <int KV>
struct Eight;

template <>
struct Eight<16> {
    uint4 words;
    __device__ __forceinline__ void load(const u8* cache, u64 at) { words = load_16(cache + at * 2); }
    __device__ __forceinline__ void clear() { words = make_uint4(0, 0, 0, 0); }
    __device__ __forceinline__ uint4 halves() const { return words; }
    __device__ __forceinline__ void floats(float (&to)[8]) const {
        const u32 all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = f16x2_to_f32(all[i]);
            to[2 * i] = pair.x;
            to[2 * i + 1] = pair.y;
        }
    }
};

template <>
struct Eight<8> {
    uint2 words;
    __device__ __forceinline__ void load(const u8* cache, u64 at) { words = load_8(cache + at); }
    __device__ __forceinline__ void clear() { words = make_uint2(0, 0); }
    __device__ __forceinline__ uint4 halves() const {
        const uint2 low = i8x4_to_f16(words.x), high = i8x4_to_f16(words.y);
        return make_uint4(low.x, low.y, high.x, high.y);
    }
    __device__ __forceinline__ void floats(float (&to)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; ++i) to[i] = (float)(i8)(u8)((i < 4 ? words.x : words.y) >> (i % 4 * 8));
    }
};

#endif
