// The norm before the rounding, by every block for itself: the sum of squares, a barrier, then each element times the factor.
//
// Unlike decode/norm.cuh, which leaves the factor to the sums, this has to go over the token twice: from global memory both
// times, or with STAGED from shared memory the second time.
#ifndef EDGELLM_RMSNORM_GEMV_NORM_FIRST_CUH
#define EDGELLM_RMSNORM_GEMV_NORM_FIRST_CUH

#include "decode/norm.cuh"

template <bool STAGED>
struct NormFirst : NormStage {
    float* const staged;  // shared memory of K floats, with STAGED

    __device__ __forceinline__ NormFirst(u8* slab, float* staged, float* parts, const float* norm, const float* x, int K, float eps)
        : NormStage(slab, parts, norm, x, K, eps), staged(staged) {}

    // Elements `at` to `at + 3`, or zeros beyond the end.
    __device__ __forceinline__ float4 first_time(int at) const {
        if (at >= K) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float4 v = *(const float4*)(x + at);
        if (STAGED) *(float4*)(staged + at) = v;
        return v;
    }

    // What this very thread has read before: the second time needs no barrier.
    __device__ __forceinline__ float4 second_time(int at) const {
        if (at >= K) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return *(const float4*)((STAGED ? staged : x) + at);
    }

    __device__ __forceinline__ float factor() {
        float squares = 0.0f;
        for (int base = 0; base < K; base += NORM_CHUNK) {
            float4 v[HOLD];
#pragma unroll
            for (int h = 0; h < HOLD; ++h) v[h] = first_time(base + (h * THREADS + (int)threadIdx.x) * 4);
#pragma unroll
            for (int h = 0; h < HOLD; ++h) squares += v[h].x * v[h].x + v[h].y * v[h].y + (v[h].z * v[h].z + v[h].w * v[h].w);
        }
        squares = warp_sum(squares);
        if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = squares;
        __syncthreads();
        squares = parts[0];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) squares += parts[w];
        return 1.0f / sqrtf(squares / (float)K + eps);
    }

    __device__ __forceinline__ void late() {
        const float by = factor();
        for (int base = 0; base < K; base += NORM_CHUNK) {
            if (base > 0) load_weights(base);
            float4 v[HOLD];
#pragma unroll
            for (int h = 0; h < HOLD; ++h) {
                v[h] = second_time(base + (h * THREADS + (int)threadIdx.x) * 4);
                v[h] = make_float4(v[h].x * by, v[h].y * by, v[h].z * by, v[h].w * by);
            }
#pragma unroll
            for (int h = 0; h < HOLD; ++h) {
                // As in NormStage: whole warps beyond the end have nothing to do.
                const int warp_at = base + (h * THREADS + (int)(threadIdx.x / WARP * WARP)) * 4;
                if (warp_at < K) put(warp_at + (int)(threadIdx.x % WARP) * 4, v[h], weights[h]);
            }
        }
        __syncthreads();
        scale = 1.0f;
    }
};

#endif
