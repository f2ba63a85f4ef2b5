// 16-bit floats that kernels compute with or store. Two of them are a word, the first in its lower half.
#ifndef EDGELLM_HALF_CUH
#define EDGELLM_HALF_CUH

#include "dialect.cuh"

#define F16_MAX 65504.0f

// What lies beyond the range of f16 becomes the largest of them, so that a product with zero stays zero. NaN stays NaN.
__device__ __forceinline__ float within_f16(float v) {
    return v > F16_MAX ? F16_MAX : v < -F16_MAX ? -F16_MAX : v;
}

// The f16 nearest to a value within their range.
__device__ __forceinline__ u16 f32_to_f16_saturated(float v) {
    return f32_to_f16(within_f16(v));
}

// Two values as a word, each rounded to the nearest; one instruction where there is one. (PTX: cvt)
__device__ __forceinline__ u32 pack_halves(float low, float high) {
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u32 word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return f32_to_f16x2(low, high);
#endif
}

// As pack_halves, within the range of f16.
__device__ __forceinline__ u32 pack_halves_saturated(float low, float high) {
    return pack_halves(within_f16(low), within_f16(high));
}

// The same half twice.
__device__ __forceinline__ u32 both_halves(u32 half) {
    return __byte_perm(half, 0, 0x1010);
}

// a + b, a * b and a * b + c, half by half, each rounded once. (PTX: add, mul, fma)
__device__ __forceinline__ u32 add_halves(u32 a, u32 b) {
#ifdef EDGELLM_EMULATED
    const float2 x = f16x2_to_f32(a), y = f16x2_to_f32(b);
    return f32_to_f16x2(x.x + y.x, x.y + y.y);
#else
    u32 d;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
#endif
}

__device__ __forceinline__ u32 multiply_halves(u32 a, u32 b) {
#ifdef EDGELLM_EMULATED
    const float2 x = f16x2_to_f32(a), y = f16x2_to_f32(b);
    return f32_to_f16x2(x.x * y.x, x.y * y.y);
#else
    u32 d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
#endif
}

__device__ __forceinline__ u32 fma_halves(u32 a, u32 b, u32 c) {
#ifdef EDGELLM_EMULATED
    const float2 x = f16x2_to_f32(a), y = f16x2_to_f32(b), z = f16x2_to_f32(c);
    return f32_to_f16x2(fmaf(x.x, y.x, z.x), fmaf(x.y, y.y, z.y));
#else
    u32 d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#endif
}

#endif
