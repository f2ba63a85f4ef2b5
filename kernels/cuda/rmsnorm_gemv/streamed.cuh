// Activations that are normed and rounded in registers when they are multiplied, a group of 32 at a time.
#ifndef EDGELLM_RMSNORM_GEMV_STREAMED_CUH
#define EDGELLM_RMSNORM_GEMV_STREAMED_CUH

#include "decode/frame.cuh"
#include "quantize_a8/rounding.cuh"

// 32 codes with their scale and the sums of their halves, as the activations of a unit of a format.
__device__ __forceinline__ void take(Group32& a, uint4 low, uint4 high, float s, int first, int second, int unit) {
    (void)unit;
    a = {low, high, s, s * (float)(first + second)};
}

__device__ __forceinline__ void take(Q6KPlanes::Activations& a, uint4 low, uint4 high, float s, int first, int second, int unit) {
    (void)unit;
    a = {low, high, s, -32 * first, -32 * second};
}

__device__ __forceinline__ void take(Q80Planes::Activations& a, uint4 low, uint4 high, float s, int first, int second, int unit) {
    (void)first;
    (void)second;
    a = {unit % 2 == 0 ? low : high, s};
}

struct StreamStage {
    const float *const norm, *const x;
    const int K;
    const float eps;
    float factor;
    static constexpr float scale = 1.0f;

    __device__ __forceinline__ StreamStage(const float* norm, const float* x, int K, float eps)
        : norm(norm), x(x), K(K), eps(eps), factor(0.0f) {}

    __device__ __forceinline__ void early() {}

    // The first pass, by the lanes of a row alone.
    __device__ __forceinline__ void late() {
        float squares = 0.0f;
        for (int at = threadIdx.x % LPR * 4; at < K; at += LPR * 4) {
            const float4 v = *(const float4*)(x + at);
            squares += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
        }
        factor = 1.0f / sqrtf(warp_sum_over<1, LPR>(squares) / (float)K + eps);
    }

    // The second pass: the group of 32 that a unit lies in.
    __device__ __forceinline__ Weights::Activations load(int unit) const {
        const int group = unit / Weights::units(32);
        float v[32];
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < 32; i += 4) {
            const float4 a = *(const float4*)(x + group * 32 + i);
            const float4 w = *(const float4*)(norm + group * 32 + i);
            v[i] = a.x * factor * w.x;
            v[i + 1] = a.y * factor * w.y;
            v[i + 2] = a.z * factor * w.z;
            v[i + 3] = a.w * factor * w.w;
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) largest = fmaxf(largest, fabsf(v[i]));
        const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
        u32 words[8];
        int sums[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int a = a8_code(v[4 * i], inverse), b = a8_code(v[4 * i + 1], inverse);
            const int c = a8_code(v[4 * i + 2], inverse), d = a8_code(v[4 * i + 3], inverse);
            words[i] = (u32)(a & 255) | (u32)(b & 255) << 8 | (u32)(c & 255) << 16 | (u32)(d & 255) << 24;
            sums[i / 4] += a + b + c + d;
        }
        Weights::Activations out;
        take(out, make_uint4(words[0], words[1], words[2], words[3]), make_uint4(words[4], words[5], words[6], words[7]),
             largest / 127.0f, sums[0], sums[1], unit);
        return out;
    }
};

#endif
