// One weight at a time from the file's own blocks, read byte by byte: for plain kernels, which need no alignment.
#ifndef EDGELLM_DECODE_CUH
#define EDGELLM_DECODE_CUH

#include "dialect.cuh"

#define Q4_K 1
#define Q5_K 2
#define Q6_K 3
#define Q8_0 4
#define TQ2_0 5

#if !defined(FORMAT)
#error "a plain kernel needs FORMAT set by the build to Q4_K, Q5_K, Q6_K, Q8_0 or TQ2_0"
#endif

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

#if FORMAT == Q4_K || FORMAT == Q5_K
// The 6-bit scale and minimum of sub-block j of 8. Those of the last four are split between two bytes.
__device__ __forceinline__ void scale_min(const u8* packed, int j, int& scale, int& minimum) {
    if (j < 4) {
        scale = packed[j] & 63;
        minimum = packed[j + 4] & 63;
    } else {
        scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        minimum = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}
#endif

// Weight i of a row.
__device__ __forceinline__ float weight_at(const u8* row, int i) {
#if FORMAT == Q8_0
    const u8* b = row + (u64)(i / 32) * 34;
    return f16_at(b) * (float)(i8)b[2 + i % 32];
#else
    const int at = i % 256, half = at / 128, of = at % 128;
#if FORMAT == Q4_K || FORMAT == Q5_K
    (void)half;
    (void)of;
    const int sub = at / 32, pair = sub / 2, m = at % 32;
    const u8* b = row + (u64)(i / 256) * (FORMAT == Q4_K ? 144 : 176);
    int scale, minimum;
    scale_min(b + 4, sub, scale, minimum);
    const u8* qs = b + (FORMAT == Q4_K ? 16 : 48) + pair * 32;
    int code = sub % 2 == 0 ? qs[m] & 15 : qs[m] >> 4;
    if (FORMAT == Q5_K) code |= (b[16 + m] >> sub & 1) << 4;
    return f16_at(b) * (float)scale * (float)code - f16_at(b + 2) * (float)minimum;
#elif FORMAT == Q6_K
    const u8* b = row + (u64)(i / 256) * 210;
    const int quarter = of / 32, l = of % 32;
    const int low = b[half * 64 + l + quarter % 2 * 32] >> quarter / 2 * 4 & 15;
    const int high = b[128 + half * 32 + l] >> quarter * 2 & 3;
    const float scale = f16_at(b + 208) * (float)(i8)b[192 + half * 8 + quarter * 2 + l / 16];
    return scale * (float)((low | high << 4) - 32);
#elif FORMAT == TQ2_0
    const u8* b = row + (u64)(i / 256) * 66;
    return f16_at(b + 64) * (float)((b[half * 32 + of % 32] >> of / 32 * 2 & 3) - 1);
#else
#error "FORMAT is none that a plain kernel decodes"
#endif
#endif
}

// Bytes of a row of K weights.
__device__ __forceinline__ u64 row_bytes(int K) {
#if FORMAT == Q8_0
    return (u64)(K / 32) * 34;
#else
    return (u64)(K / 256) * (FORMAT == Q4_K ? 144 : FORMAT == Q5_K ? 176 : FORMAT == Q6_K ? 210 : 66);
#endif
}

#endif
