// What the plain kernels of a decoded token share: one weight at a time from the file's own blocks, floats throughout.
#ifndef EDGELLM_DECODE_PLAIN_CUH
#define EDGELLM_DECODE_PLAIN_CUH

// Ternary weights lie in blocks of 256 too, and are decoded beside the K-quants.
#define IS_K_QUANT_TQ2_0 1
#include "decode/names.cuh"
#if K_QUANT
#include "gemv_k/decode.cuh"
#else
#include "native.cuh"
#endif
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

#define THREADS 256

__device__ __forceinline__ float plain_weight(const u8* W, int row, int column, int N, int K) {
#if K_QUANT
    (void)N;
    return weight_at(W + (u64)row * row_bytes(K), column);
#else
    return weight_at(W, row, column, N, K);
#endif
}

// 1 / sqrt(mean(x^2) + eps), in every thread. `parts` is shared memory of THREADS / 32.
__device__ __forceinline__ float norm_scale(const float* x, int K, float eps, float* parts) {
    float squares = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) squares += x[i] * x[i];
    return 1.0f / sqrtf(block_sum<THREADS>(squares, parts) / (float)K + eps);
}

// The product of a row with the norm of x, in every thread.
__device__ __forceinline__ float normed_row(const u8* W, int row, int N, int K, const float* norm, const float* x, float scale,
                                            float* parts) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += plain_weight(W, row, i, N, K) * (x[i] * scale * norm[i]);
    return block_sum<THREADS>(sum, parts);
}

#endif
